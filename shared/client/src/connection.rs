//! The connection to a gateway, and what it says of tables.

use std::time::Duration;

use proto::v1::{DescribeTableRequest, TableDescription, ingest_client::IngestClient};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use types::{
    Generation, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings, TenantId,
};

use crate::{
    BlocksWriter, ClientError, ColumnsWriter, Options, RowsWriter,
    error::{Verdict, verdict},
    retry::Attempts,
};

/// Bytes that may be under way on a connection and on one of its streams: large batches are not to wait for windows.
const WINDOW_BYTES: u32 = 16 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(20);

pub(crate) type Stub = IngestClient<InterceptedService<Channel, Credential>>;

/// A connection to a gateway. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    stub: Stub,
}

/// Adds the API key to each call.
#[derive(Debug, Clone)]
pub(crate) struct Credential(Option<AsciiMetadataValue>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Connects to a gateway's gRPC port (`http://127.0.0.1:9088`), with an API key where it asks for one.
    ///
    /// # Errors
    /// The address or the key is none, or nobody answers.
    pub async fn connect(address: &str, api_key: Option<&str>) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(address.to_owned());
        let endpoint = endpoint.map_err(|_| ClientError::Address { address: address.to_owned() })?;
        let endpoint = endpoint
            .tcp_nodelay(true)
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE);
        let key = api_key.map(|key| {
            let mut value = AsciiMetadataValue::try_from(format!("Bearer {key}")).map_err(|_| ClientError::ApiKey)?;
            value.set_sensitive(true);
            Ok(value)
        });
        let credential = Credential(key.transpose()?);
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|source| ClientError::Connect { address: address.to_owned(), source })?;
        Ok(Self { stub: IngestClient::with_interceptor(channel, credential) })
    }

    /// A writer of columns for one table, which is created if it does not exist and may be.
    ///
    /// # Errors
    /// The server does not describe the table.
    pub async fn columns(&self, namespace: &str, table: &str, options: Options) -> Result<ColumnsWriter, ClientError> {
        let description = self.describe(namespace, table, &options).await?;
        Ok(ColumnsWriter::new(self.stub.clone(), described(namespace, table, &description)?, &description, options))
    }

    /// A writer of blocks that are there already, for one table, which is created if it does not exist and may be.
    ///
    /// # Errors
    /// The server does not describe the table.
    pub async fn blocks(&self, namespace: &str, table: &str, options: Options) -> Result<BlocksWriter, ClientError> {
        let description = self.describe(namespace, table, &options).await?;
        Ok(BlocksWriter::new(self.stub.clone(), options, namespace, table, &description))
    }

    /// A writer of rows of any tables, over one stream.
    #[must_use]
    pub fn rows(&self, options: Options) -> RowsWriter {
        RowsWriter::new(self.stub.clone(), options)
    }

    async fn describe(&self, namespace: &str, table: &str, options: &Options) -> Result<TableDescription, ClientError> {
        let request = DescribeTableRequest { namespace: namespace.into(), table: table.into(), create: true };
        let mut attempts = Attempts::default();
        loop {
            let status = match self.stub.clone().describe_table(request.clone()).await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(status) => status,
            };
            attempts.wait(&options.retry, status, options.sequence).await?;
        }
    }
}

impl Attempts {
    /// Waits before the next attempt, as the answer and the policy have it.
    ///
    /// # Errors
    /// There is to be no further attempt.
    pub(crate) async fn wait(
        &mut self,
        policy: &crate::RetryPolicy,
        status: Status,
        salt: u64,
    ) -> Result<(), ClientError> {
        let Verdict::Again { after } = verdict(&status) else { return Err(ClientError::Refused(Box::new(status))) };
        let Some(pause) = policy.pause(self, after, salt) else {
            let Self { failed: attempts, waited } = *self;
            return Err(ClientError::GaveUp { attempts, waited, last: Box::new(status) });
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// The table as far as making blocks needs it: its settings and columns are the server's to know.
fn described(namespace: &str, table: &str, description: &TableDescription) -> Result<Table, ClientError> {
    let partitions: Vec<_> = description.partitions.iter().copied().map(PartitionId).collect();
    if partitions.is_empty() || !partitions.is_sorted_by(|a, b| a < b) {
        return Err(ClientError::Description("its partitions are not ascending numbers"));
    }
    Ok(Table {
        key: TableKey {
            tenant: TenantId::DEFAULT,
            table: TableId(description.table_id),
            generation: Generation(description.generation),
        },
        name: TableName::new(namespace, table),
        partitions,
        partition_by: description.partition_by.clone(),
        partition_seed: description.partition_seed,
        // Servers keep it to themselves, and a client has no use for it.
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(description.schema_version), Vec::new()),
        settings: TableSettings::default(),
    })
}
