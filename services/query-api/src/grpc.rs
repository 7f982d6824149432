//! `truenow.v1.Query`: the same questions and answers over gRPC.

use std::sync::Arc;

use axum::middleware::map_response;
use proto::v1::{
    QueryPart, QueryReply, QueryRequest,
    query_server::{Query, QueryServer},
};
use service::{Protocol, Routes};
use tonic::{Request, Response, Status};
use types::TenantId;

use crate::{
    answer::Answers,
    held::{self, Held},
    http::QUERY_BYTES_MAX,
    parts::Parts,
};

pub(crate) struct QueryService {
    answers: Arc<Answers>,
}

/// The gRPC service.
pub(crate) fn routes(answers: Arc<Answers>) -> Routes {
    let service = QueryServer::new(QueryService { answers }).max_decoding_message_size(QUERY_BYTES_MAX);
    let router = Routes::new(service).into_axum_router();
    router.layer(map_response(|response| async { held::hold(response, Protocol::Grpc) })).into()
}

#[tonic::async_trait]
impl Query for QueryService {
    /// Parts are made when they are sent, which is as fast as the client takes them.
    type QueryStreamStream = tokio_stream::Iter<PartResults>;

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryReply>, Status> {
        let tenant = tenant(&request)?;
        let query = request.into_inner().query;
        let answer = self.answers.answer(tenant, query.into()).await;
        let (answer, held) = answer.map_err(|error| service::to_status(&error))?;
        Ok(reply(QueryReply { answer: answer.concat() }, held))
    }

    async fn query_stream(&self, request: Request<QueryRequest>) -> Result<Response<Self::QueryStreamStream>, Status> {
        let tenant = tenant(&request)?;
        let query = request.into_inner().query;
        let answered = self.answers.answered(tenant, query.into()).await;
        let parts = answered.and_then(|(answered, held)| Ok((Parts::new(answered)?, held)));
        let (parts, held) = parts.map_err(|error| service::to_status(&error))?;
        Ok(reply(tokio_stream::iter(PartResults(parts)), held))
    }
}

/// A reply that waits for its client for a while.
fn reply<T>(message: T, held: Held) -> Response<T> {
    let mut reply = Response::new(message);
    reply.extensions_mut().insert(held);
    reply
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
