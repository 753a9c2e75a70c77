//! Standard gRPC services beside our own: health and reflection, over mTLS.

use http::uri::PathAndQuery;
use jingwei_registry::connect::{Link, Patience, Target};
use jingwei_tests::local::runtime;
use jingwei_tests::lying_peer::identity;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::pair::Pair;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct Check {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct Checked {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `grpc.reflection.v1.ServerReflectionRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct Reflect {
    #[prost(string, tag = "7")]
    list_services: String,
}

/// `grpc.reflection.v1.ServerReflectionResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct Reflected {
    #[prost(message, optional, tag = "6")]
    listed: Option<Listed>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
}

/// 1 of `HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;

async fn health(link: &Link, service: &str) -> i32 {
    let mut grpc = Grpc::new(link.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(Check {
        service: service.to_owned(),
    });
    let codec = ProstCodec::<Check, Checked>::default();
    grpc.unary(request, path, codec)
        .await
        .unwrap()
        .into_inner()
        .status
}

async fn services(link: &Link) -> Vec<String> {
    let mut grpc = Grpc::new(link.clone());
    grpc.ready().await.unwrap();
    let path =
        PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let request = futures::stream::iter([Reflect {
        list_services: "*".to_owned(),
    }]);
    let codec = ProstCodec::<Reflect, Reflected>::default();
    let mut replies = grpc
        .streaming(tonic::Request::new(request), path, codec)
        .await
        .unwrap()
        .into_inner();
    let listed = replies.message().await.unwrap().unwrap().listed.unwrap();
    listed
        .service
        .into_iter()
        .map(|service| service.name)
        .collect()
}

#[test]
fn nodes_serve_health_and_reflection() {
    let pair = Pair::shared();
    let own = identity(&pair.b.dir);
    let target = Target::new(
        &pair.a.listen.to_string(),
        [identity(&pair.a.dir).id],
        Some(&own),
        Patience::default(),
    )
    .unwrap();
    runtime().block_on(async {
        let link = target.connect().await.unwrap();
        assert_eq!(health(&link, "").await, SERVING);
        assert_eq!(health(&link, "jingwei.node.v1.Peer").await, SERVING);
        let services = services(&link).await;
        for name in [
            "jingwei.node.v1.Peer",
            "arrow.flight.protocol.FlightService",
            "grpc.health.v1.Health",
        ] {
            assert!(
                services.iter().any(|service| service == name),
                "{services:?}"
            );
        }
    });
}

#[test]
fn the_registry_serves_health_and_reflection() {
    let pair = Pair::shared();
    let registry = &pair.federation.registry;
    let target = Target::new(
        &registry.address.to_string(),
        [identity(&registry.dir).id],
        None,
        Patience::default(),
    )
    .unwrap();
    runtime().block_on(async {
        let link = target.connect().await.unwrap();
        assert_eq!(health(&link, "jingwei.registry.v1.Registry").await, SERVING);
        let services = services(&link).await;
        assert!(
            services
                .iter()
                .any(|service| service == "jingwei.registry.v1.Registry"),
            "{services:?}"
        );
    });
}
