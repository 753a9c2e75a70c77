//! The service for the node's own people: the command line on the same machine.
//!
//! Who may open the socket file may use the node as any agency that it hosts; the file's owner
//! and mode are the access control.

mod publish;
mod sql;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use jingwei_proto::checkpoint::CheckpointKeys;
use jingwei_proto::json;
use jingwei_proto::note::Note;
use jingwei_proto::statement::{Head, Predicate, Schema, Statement, fingerprint};
use jingwei_proto::wire::node::{
    ChangeAgencyRequest, ChangeAgencyResponse, CompareRequest, CompareResponse, Cosigner,
    DescribeRequest, DescribeResponse, EnrolRequest, EnrolResponse, EnterSchemaRequest,
    EnterSchemaResponse, FindRequest, FindResponse, FollowRequest, FollowResponse, HostedAgency,
    PublishRequest, PublishResponse, SqlRequest, SqlResponse, StatusRequest, StatusResponse,
};
use jingwei_registry::enrolment::{Proposal, check_territory};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::index::IndexError;
use jingwei_registry::rehearsal;
use jingwei_registry::replica::Alarm;
use jingwei_schemas::TableSchema;
use tonic::{Request, Response, Status, Streaming};

use crate::node::{Node, index_fault};
use crate::serve::stubs::local_server::Local;

/// Datasets in one answer of `find`.
const MOST_FOUND: usize = 1_000;

/// Serves the command line.
pub struct LocalService(pub Arc<Node>);

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Local for LocalService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.0.status()))
    }

    async fn compare(
        &self,
        _: Request<CompareRequest>,
    ) -> Result<Response<CompareResponse>, Status> {
        let peers = self.0.compare().await;
        Ok(Response::new(CompareResponse { peers }))
    }

    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        Ok(Response::new(self.0.enrol(request.get_ref()).await?))
    }

    async fn change_agency(
        &self,
        request: Request<ChangeAgencyRequest>,
    ) -> Result<Response<ChangeAgencyResponse>, Status> {
        Ok(Response::new(
            self.0.change_agency(request.get_ref()).await?,
        ))
    }

    async fn follow(
        &self,
        request: Request<FollowRequest>,
    ) -> Result<Response<FollowResponse>, Status> {
        let (origin, size) = self.0.follow(&request.get_ref().registry).await?;
        Ok(Response::new(FollowResponse { origin, size }))
    }

    async fn enter_schema(
        &self,
        request: Request<EnterSchemaRequest>,
    ) -> Result<Response<EnterSchemaResponse>, Status> {
        Ok(Response::new(self.0.enter_schema(request.get_ref()).await?))
    }

    type PublishStream = Replies<PublishResponse>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        Ok(Response::new(publish::serve(
            self.0.clone(),
            request.into_inner(),
        )))
    }

    async fn find(&self, request: Request<FindRequest>) -> Result<Response<FindResponse>, Status> {
        let request = request.into_inner();
        let limit = match request.limit {
            0 => MOST_FOUND,
            limit => MOST_FOUND.min(limit as usize),
        };
        Ok(Response::new(self.0.find(&request.words, limit)?))
    }

    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        Ok(Response::new(self.0.describe(&request.get_ref().dataset)?))
    }

    type SqlStream = Replies<SqlResponse>;

    async fn sql(
        &self,
        request: Request<Streaming<SqlRequest>>,
    ) -> Result<Response<Self::SqlStream>, Status> {
        Ok(Response::new(sql::serve(
            self.0.clone(),
            request.into_inner(),
        )))
    }
}

impl Node {
    /// What the node is, sees and waits for.
    pub fn status(&self) -> StatusResponse {
        let standing = self.replica.standing().borrow().clone();
        let raised = self.replica.alarms();
        let mut alarms: Vec<String> = raised.iter().map(ToString::to_string).collect();
        // No later attempt mends this: the log has entries that cannot be understood here.
        let newer = self.replica.index().newer_rules();
        alarms.extend(newer.map(|rules| IndexError::RulesTooNew(rules).to_string()));
        // What is an alarm is the last failure, too.
        let told = |problem: &String| {
            let same = |alarm: &Alarm| alarm.text == *problem;
            alarms.contains(problem) || raised.iter().any(same)
        };
        let problem = standing.problem.filter(|problem| !told(problem));
        alarms.extend(self.key_alarms());
        alarms.extend(self.contested());
        StatusResponse {
            federation: self.membership.federation.to_string(),
            root_fingerprint: fingerprint(&self.membership.root),
            registry: self.source.borrow().to_string(),
            address: self.address().unwrap_or_default().to_owned(),
            agencies: self
                .agencies
                .values()
                .map(|agency| self.hosted_status(agency))
                .collect(),
            log_size: standing.size,
            log_time: standing.log_time.map_or(0, |time| time.seconds()),
            registry_seen: standing.registry_seen.map_or(0, |time| time.seconds()),
            alarms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            problem: problem.unwrap_or_default(),
            cosigners: self.cosigners(),
            witness: self.witness_key(),
            publishing: self
                .under_way()
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
        }
    }

    /// Who has to co-sign the newest checkpoint that the replica holds, and has.
    fn cosigners(&self) -> Vec<Cosigner> {
        let (root, note) = (
            self.replica.index().root(),
            self.replica.log().checkpoint_note(),
        );
        let (Ok(Some(root)), Ok(note)) = (root, note) else {
            return Vec::new();
        };
        let cosigners = Note::parse(note.as_bytes())
            .and_then(|note| CheckpointKeys::of_root(&root).cosigners(&note));
        let cosigners = cosigners.unwrap_or_default().into_iter();
        cosigners
            .map(|(key, time)| Cosigner {
                name: key.name().to_owned(),
                time: time.map_or(0, |time| time.seconds()),
            })
            .collect()
    }

    fn hosted_status(&self, agency: &crate::agency::HostedAgency) -> HostedAgency {
        let record = self.replica.index().agency(agency.id()).ok().flatten();
        // What it was enrolled with counts; before that, what it says of itself.
        let (name, level, territory) = match &record {
            Some(record) => (
                record.name.clone(),
                record.level,
                record.territory.to_string(),
            ),
            None => (
                agency.profile.name.clone(),
                agency.profile.level,
                agency.profile.territory.to_string(),
            ),
        };
        HostedAgency {
            id: agency.id().to_string(),
            enrolled: record.is_some(),
            name,
            level,
            territory,
            announced: self.is_announced(agency),
            stopped: record
                .and_then(|record| self.stopped(&record))
                .map_or_else(String::new, |stopped| stopped.to_string()),
        }
    }

    /// Signs and submits the enrolment that is asked for, as its superior, once all is checked that
    /// can be checked here.
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<EnrolResponse, Fault> {
        let proposal = Proposal::parse(&request.proposal)?;
        proposal.check_federation(&self.membership.federation)?;
        let superior = proposal.id.superior().ok_or_else(|| {
            Fault::new(
                Blame::Unauthorised,
                format!("{} is national: the root enrols it", proposal.id),
            )
            .advise("give the file to the registry's keepers, who run ‘jingwei-registry enrol’")
        })?;
        let agency = self.agencies.get(&superior).ok_or_else(|| {
            Fault::new(
                Blame::Unauthorised,
                format!(
                    "{} is enrolled by {superior}, which this node does not host",
                    proposal.id
                ),
            )
            .advise(format!("give the file to {superior}"))
        })?;
        let mut response = EnrolResponse {
            agency: proposal.id.to_string(),
            superior: superior.to_string(),
            ..EnrolResponse::default()
        };
        if let Some(index) = proposal.entered(self.replica.index(), self.replica.log())? {
            (response.index, response.already) = (index, true);
            return Ok(response);
        }
        let envelope = proposal.statement().sign(&agency.signing);
        // The registry judges; where the replica knows the superior already, it is told in time
        // and with advice.
        if let Ok(record) = self.member(&superior) {
            check_territory(&proposal.id, &proposal.agency.territory, &record)?;
            rehearsal::judge(self.replica.index(), &envelope)?;
        }
        if !request.only_check {
            response.index = self.enter(&envelope).await?;
        }
        Ok(response)
    }

    async fn enter_schema(
        &self,
        request: &EnterSchemaRequest,
    ) -> Result<EnterSchemaResponse, Fault> {
        let agency = self.hosted_agency(&request.agency)?;
        let name = request
            .name
            .parse()
            .map_err(|error| Fault::new(Blame::WrongUse, format!("{error}")))?;
        let schema = TableSchema::parse(&request.schema)
            .and_then(|schema| schema.with_order())
            .map_err(|error| Fault::new(Blame::Malformed, error.to_string()))?;
        let id = jingwei_proto::id::DatasetId {
            agency: agency.id().clone(),
            name,
        };
        let text = String::from_utf8_lossy(&json::canonical(schema.json())).into_owned();
        let current = self.replica.index().schema(&id).map_err(index_fault)?;
        if let Some(record) = current.as_ref().filter(|now| now.schema.schema == text) {
            return Ok(EnterSchemaResponse {
                version: record.chain.sequence,
                index: record.chain.index,
                existed: true,
            });
        }
        let sequence = current
            .as_ref()
            .map_or(1, |record| record.chain.sequence + 1);
        let statement = Statement {
            head: Head {
                federation: self.membership.federation.clone(),
                agency: Some(agency.id().clone()),
                time: (self.clock)(),
                sequence,
                previous: current.map(|record| record.chain.payload),
            },
            predicate: Predicate::Schema(Schema {
                name: id.name,
                schema: text,
            }),
        };
        let index = self.enter(&statement.sign(&agency.signing)).await?;
        Ok(EnterSchemaResponse {
            version: sequence,
            index,
            existed: false,
        })
    }
}
