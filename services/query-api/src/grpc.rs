//! `truenow.v1.Query`: the same questions and answers over gRPC.

use std::sync::Arc;

use proto::v1::{QueryReply, QueryRequest, query_server::Query};
use tonic::{Request, Response, Status};
use types::TenantId;

use crate::answer::Answers;

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
    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryReply>, Status> {
        let tenant = request.extensions().get::<TenantId>().copied();
        let tenant = tenant.ok_or_else(|| Status::internal("the request came without a tenant"))?;
        let query = request.into_inner().query;
        let answer = self.answers.answer(tenant, query.into()).await.map_err(|error| service::to_status(&error))?;
        Ok(Response::new(QueryReply { answer }))
    }
}
