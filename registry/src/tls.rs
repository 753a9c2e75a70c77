//! TLS whose trust comes from the membership: verifiers and configurations for rustls.
//!
//! There is no certificate authority here. A certificate is only an envelope for a public key,
//! and a key is trusted because an agency lists it in a signed statement of the log. Therefore
//!
//! - a server asks [`Members`] whether it knows the client's key;
//! - a client is told beforehand which keys the server may have ([`client_config`]);
//! - the names, dates and issuer inside the self-signed certificates are not consulted at all:
//!   they are the holder's own words, and a key leaves the membership by a statement, not by a date;
//! - that the other side *holds* the key is verified in every handshake, by its signature;
//! - sessions are never resumed, because a resumed session skips the look-up of the key.
//!
//! A key may lose its membership while a connection lives, so servers also check each request
//! (`serve::members_only`).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use jingwei_proto::key::KeyId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    ServerConfig, SignatureScheme,
};

use crate::keyfile::TlsIdentity;

/// HTTP/2 for gRPC first, HTTP/1.1 for ordinary clients of the static files.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Whose TLS keys are trusted: the replica's view of who is a member now.
pub trait Members: Send + Sync {
    /// Whether a member that is neither suspended nor revoked lists this TLS key.
    fn knows(&self, key: &KeyId) -> bool;
}

impl<F: Fn(&KeyId) -> bool + Send + Sync> Members for F {
    fn knows(&self, key: &KeyId) -> bool {
        self(key)
    }
}

/// What a server demands of a client before the first byte of a request.
#[derive(Clone)]
pub enum ClientKeys {
    /// A certificate whose key the membership knows: between nodes.
    Required(Arc<dyn Members>),
    /// None needed, but if one is shown, the membership must know its key.
    Optional(Arc<dyn Members>),
}

/// The other side is not who it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// A client's key is not in the membership.
    #[error("the client's TLS key {0} belongs to no member of this federation")]
    UnknownClient(KeyId),
    /// The server's key is not the one that the log names.
    #[error(
        "the server shows TLS key {found}, but the log names {expected}; it is not the server asked for"
    )]
    WrongServer {
        /// The key that the server showed.
        found: KeyId,
        /// The keys that it may have, for a message.
        expected: String,
    },
}

/// The id of the key in a certificate, for comparison with the log.
pub fn key_of(certificate: &CertificateDer<'_>) -> Result<KeyId, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(KeyId::of_spki(&parsed.subject_public_key_info()))
}

/// The configuration of a server with this identity, which lets in the given clients.
pub fn server_config(
    identity: &TlsIdentity,
    clients: ClientKeys,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    server_config_with(Identity::new(identity)?, clients)
}

/// The same, for a server whose identity may be replaced while it serves.
pub fn server_config_with(
    identity: Arc<Identity>,
    clients: ClientKeys,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = provider();
    let verifier = ClientVerifier {
        clients,
        provider: provider.clone(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(identity);
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What a server shows: connections that begin after a replacement see the new key.
#[derive(Debug)]
pub struct Identity(RwLock<Arc<CertifiedKey>>);

impl Identity {
    /// The identity to begin with.
    pub fn new(identity: &TlsIdentity) -> Result<Arc<Identity>, rustls::Error> {
        Ok(Arc::new(Identity(RwLock::new(certified(identity)?))))
    }

    /// Shows another one from now on.
    pub fn replace(&self, identity: &TlsIdentity) -> Result<(), rustls::Error> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(identity)?;
        Ok(())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

fn certified(identity: &TlsIdentity) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let chain = vec![identity.cert.clone()];
    CertifiedKey::from_der(chain, identity.key.clone_key(), &provider()).map(Arc::new)
}

/// The configuration of a client that accepts a server with one of the `expected` keys only,
/// and shows `identity` if it is asked for a certificate.
pub fn client_config(
    identity: Option<&TlsIdentity>,
    expected: impl IntoIterator<Item = KeyId>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let verifier = ServerVerifier {
        expected: expected.into_iter().collect(),
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(own) => builder.with_client_auth_cert(vec![own.cert.clone()], own.key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN[0].to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// aws-lc-rs with its own order of preference, X25519MLKEM768 first; passed to each builder, so
/// that no process-wide default is needed and two libraries cannot quarrel over it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

struct ClientVerifier {
    clients: ClientKeys,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        matches!(self.clients, ClientKeys::Required(_))
    }

    /// Empty, which means any: a client need not guess an issuer.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let (ClientKeys::Required(members) | ClientKeys::Optional(members)) = &self.clients;
        let key = key_of(end_entity)?;
        if members.knows(&key) {
            return Ok(ClientCertVerified::assertion());
        }
        tracing::info!(%key, "refused a client whose TLS key belongs to no member");
        // This error, unlike one of our own, reaches the client as the alert 'access denied'.
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

struct ServerVerifier {
    expected: BTreeSet<KeyId>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = key_of(end_entity)?;
        if self.expected.contains(&found) {
            return Ok(ServerCertVerified::assertion());
        }
        let expected = match self.expected.is_empty() {
            true => "none".to_owned(),
            false => self
                .expected
                .iter()
                .map(KeyId::to_string)
                .collect::<Vec<_>>()
                .join(" or "),
        };
        let wrong = PeerError::WrongServer { found, expected };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientVerifier")
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerVerifier({:?})", self.expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::ResolvesClientCert;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// Shows one certificate and signs with the key of another.
    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);

    impl Thief {
        fn new(stolen: &TlsIdentity, own: &TlsIdentity) -> Arc<Thief> {
            let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&own.key).unwrap();
            Arc::new(Thief(Arc::new(CertifiedKey::new(
                vec![stolen.cert.clone()],
                key,
            ))))
        }
    }

    impl ResolvesClientCert for Thief {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    impl ResolvesServerCert for Thief {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }

    fn identity() -> TlsIdentity {
        TlsIdentity::generate().unwrap().0
    }

    fn members(known: KeyId) -> ClientKeys {
        ClientKeys::Required(Arc::new(move |key: &KeyId| *key == known))
    }

    /// Shakes hands in memory: the version and key exchange of the two sides, or what went wrong.
    async fn shake(
        server: Arc<ServerConfig>,
        client: ClientConfig,
    ) -> Result<(rustls::ProtocolVersion, rustls::NamedGroup), std::io::Error> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("node.example").unwrap();
        let (accepted, connected) = tokio::join!(
            TlsAcceptor::from(server).accept(far),
            TlsConnector::from(Arc::new(client)).connect(name, near),
        );
        let (accepted, connected) = (accepted?, connected?);
        assert_eq!(connected.get_ref().1.alpn_protocol(), Some(ALPN[0]));
        let session = accepted.get_ref().1;
        assert!(session.peer_certificates().is_some());
        let group = session.negotiated_key_exchange_group().unwrap().name();
        Ok((session.protocol_version().unwrap(), group))
    }

    fn unshared(config: Arc<ClientConfig>) -> ClientConfig {
        Arc::unwrap_or_clone(config)
    }

    #[tokio::test]
    async fn tls_1_3_with_post_quantum_key_exchange() {
        let (node, peer) = (identity(), identity());
        let server = server_config(&node, members(peer.id)).unwrap();
        let client = client_config(Some(&peer), [node.id]).unwrap();
        let (version, group) = shake(server, unshared(client)).await.unwrap();
        assert_eq!(version, rustls::ProtocolVersion::TLSv1_3);
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    }

    static TLS13: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    static TLS12: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS12];

    fn client_of(
        versions: &[&'static rustls::SupportedProtocolVersion],
        expected: KeyId,
        resolver: Arc<dyn ResolvesClientCert>,
    ) -> ClientConfig {
        let verifier = ServerVerifier {
            expected: BTreeSet::from([expected]),
            provider: provider(),
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN[0].to_vec()];
        config
    }

    #[tokio::test]
    async fn a_client_must_hold_the_key_of_its_certificate() {
        let (node, peer, thief) = (identity(), identity(), identity());
        for versions in [&TLS13, &TLS12] {
            let server = server_config(&node, members(peer.id)).unwrap();
            let honest = client_of(versions, node.id, Thief::new(&peer, &peer));
            shake(server.clone(), honest).await.unwrap();
            let forged = client_of(versions, node.id, Thief::new(&peer, &thief));
            let refused = shake(server, forged).await.unwrap_err().to_string();
            assert!(refused.contains("BadSignature"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_server_must_hold_the_key_of_its_certificate() {
        let (node, peer, thief) = (identity(), identity(), identity());
        for versions in [&TLS13, &TLS12] {
            let client = client_of(versions, node.id, Thief::new(&peer, &peer));
            let server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Thief::new(&node, &thief));
            let (near, far) = tokio::io::duplex(64 * 1024);
            let name = ServerName::try_from("node.example").unwrap();
            let (_, connected) = tokio::join!(
                TlsAcceptor::from(Arc::new(server)).accept(far),
                TlsConnector::from(Arc::new(client)).connect(name, near),
            );
            let refused = connected.unwrap_err().to_string();
            assert!(refused.contains("BadSignature"), "{refused}");
        }
    }
}
