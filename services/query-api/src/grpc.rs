//! `truenow.v1.Query`: the same questions and answers over gRPC.

use std::sync::Arc;

use proto::v1::{QueryPart, QueryReply, QueryRequest, query_server::Query};
use tonic::{Request, Response, Status};
use types::TenantId;

use crate::{answer::Answers, parts::Parts};

pub(crate) struct QueryService {
    answers: Arc<Answers>,
}

impl QueryService {
    pub(crate) fn new(answers: Arc<Answers>) -> Self {
        Self { answers }
    }
}

#[tonic::async_trait]
impl Query for QueryService {
    /// Parts are made when they are sent, which is as fast as the client takes them.
    type QueryStreamStream = tokio_stream::Iter<PartResults>;

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryReply>, Status> {
        let tenant = tenant(&request)?;
        let query = request.into_inner().query;
        let answer = self.answers.answer(tenant, query.into()).await.map_err(|error| service::to_status(&error))?;
        Ok(Response::new(QueryReply { answer }))
    }

    async fn query_stream(&self, request: Request<QueryRequest>) -> Result<Response<Self::QueryStreamStream>, Status> {
        let tenant = tenant(&request)?;
        let query = request.into_inner().query;
        let answered = self.answers.answered(tenant, query.into()).await;
        let parts = answered.and_then(Parts::new).map_err(|error| service::to_status(&error))?;
        Ok(Response::new(tokio_stream::iter(PartResults(parts))))
    }
}

/// The parts of an answer, none of which fails.
pub(crate) struct PartResults(Parts);

impl Iterator for PartResults {
    type Item = Result<QueryPart, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

fn tenant<T>(request: &Request<T>) -> Result<TenantId, Status> {
    let tenant = request.extensions().get::<TenantId>().copied();
    tenant.ok_or_else(|| Status::internal("the request came without a tenant"))
}
