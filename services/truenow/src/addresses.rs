//! Where the services of a command are: the ports of the contract on this machine unless a flag says otherwise.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

/// The host of all services where nothing else is said.
const HOST: &str = "127.0.0.1";

/// Addresses of services.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Addresses {
    /// Gateway, HTTP [default: http://127.0.0.1:8088].
    #[arg(long, value_name = "URL", help_heading = "Addresses")]
    gateway: Option<String>,
    /// Gateway, gRPC [default: http://127.0.0.1:9088].
    #[arg(long, value_name = "URL", help_heading = "Addresses")]
    gateway_grpc: Option<String>,
    /// Stream ingester, gRPC [default: http://127.0.0.1:9100].
    #[arg(long, value_name = "URL", help_heading = "Addresses")]
    ingester_grpc: Option<String>,
    /// Query API, HTTP [default: http://127.0.0.1:8081].
    #[arg(long, value_name = "URL", help_heading = "Addresses")]
    query_api: Option<String>,
    /// Control plane, HTTP [default: http://127.0.0.1:8001].
    #[arg(long, value_name = "URL", help_heading = "Addresses")]
    control: Option<String>,
    /// Watermark service, HTTP [default: http://127.0.0.1:8084].
    #[arg(long, value_name = "URL", help_heading = "Addresses")]
    watermark: Option<String>,
    /// The `--port-offset` of the server: added to the default ports above.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Addresses")]
    port_offset: u16,
    /// File that holds the API key, where the server asks for one [default: the variable TRUENOW_API_KEY].
    #[arg(long, value_name = "FILE", help_heading = "Addresses")]
    key_file: Option<PathBuf>,
}

impl Addresses {
    /// The addresses of a server on this machine with a port offset.
    pub(crate) fn local(port_offset: u16) -> Self {
        Self { port_offset, ..Self::default() }
    }

    /// Base URL of the gateway.
    pub(crate) fn gateway(&self) -> String {
        self.url(self.gateway.as_deref(), 8088)
    }

    /// Base URL of the gateway's gRPC port.
    pub(crate) fn gateway_grpc(&self) -> String {
        self.url(self.gateway_grpc.as_deref(), 9088)
    }

    /// Base URL of the stream ingester's gRPC port.
    pub(crate) fn ingester_grpc(&self) -> String {
        self.url(self.ingester_grpc.as_deref(), 9100)
    }

    /// Base URL of the query API.
    pub(crate) fn query_api(&self) -> String {
        self.url(self.query_api.as_deref(), 8081)
    }

    /// Base URL of the control plane.
    pub(crate) fn control(&self) -> String {
        self.url(self.control.as_deref(), 8001)
    }

    /// Base URL of the watermark service.
    pub(crate) fn watermark(&self) -> String {
        self.url(self.watermark.as_deref(), 8084)
    }

    /// The API key, if there is one. A key is never an argument: arguments are visible to all users of a machine.
    ///
    /// # Errors
    /// The file cannot be read or is empty.
    pub(crate) fn key(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.key_file else {
            return Ok(std::env::var("TRUENOW_API_KEY").ok().filter(|key| !key.is_empty()));
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("cannot read the key file {}: {error}", path.display())))?;
        match text.trim() {
            "" => Err(Failure::new(format!("the key file {} is empty", path.display()))),
            key => Ok(Some(key.to_owned())),
        }
    }

    fn url(&self, given: Option<&str>, port: u16) -> String {
        match given {
            Some(url) if url.contains("://") => url.trim_end_matches('/').to_owned(),
            Some(host) => format!("http://{host}"),
            None => format!("http://{HOST}:{}", port.saturating_add(self.port_offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an address may be given as a URL or as host and port, and else follows the port offset.
    #[test]
    fn urls_are_completed() {
        let mut addresses = Addresses::local(10_000);
        assert_eq!(addresses.gateway(), "http://127.0.0.1:18088");
        addresses.query_api = Some("db.example:80".into());
        addresses.control = Some("http://db.example:81/".into());
        assert_eq!(addresses.query_api(), "http://db.example:80");
        assert_eq!(addresses.control(), "http://db.example:81");
    }
}
