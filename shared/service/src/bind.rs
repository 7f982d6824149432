//! Opening a port, with errors that say which setting to change.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// Why a port is not open.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{address} is taken by another process; stop it, or change {setting} or port_offset")]
    Taken {
        /// The address.
        address: SocketAddr,
        /// The setting that names its port.
        setting: String,
    },
    /// Others than this machine could connect, and nothing would ask who they are.
    #[error("{address} can be reached from other machines, but no api_key is set: set one, or bind to 127.0.0.1")]
    Unprotected {
        /// The address.
        address: SocketAddr,
    },
    /// The system says no.
    #[error("cannot listen on {address} ({setting})")]
    System {
        /// The address.
        address: SocketAddr,
        /// The setting that names its port.
        setting: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens on `address`. `setting`: the setting that chose it, for errors. `is_authenticated`: whether clients must
/// present a credential; if not, only loopback is allowed.
///
/// # Errors
/// The port is taken, the address is open to others without authentication, or the system refuses.
pub async fn bind(address: SocketAddr, setting: &str, is_authenticated: bool) -> Result<TcpListener, BindError> {
    if !is_authenticated && !address.ip().is_loopback() {
        return Err(BindError::Unprotected { address });
    }
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { address, setting: setting.into() },
        _ => BindError::System { address, setting: setting.into(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a taken port names its setting, and nothing opens beyond loopback without a key.
    #[tokio::test]
    async fn errors_name_the_setting() {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind(free, "gateway.http_port", false).await.unwrap();
        let error = bind(first.local_addr().unwrap(), "gateway.http_port", false).await.unwrap_err();
        assert!(error.to_string().contains("gateway.http_port"), "{error}");
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        assert!(matches!(bind(everywhere, "x", false).await, Err(BindError::Unprotected { .. })));
        assert!(bind(everywhere, "x", true).await.is_ok());
    }
}
