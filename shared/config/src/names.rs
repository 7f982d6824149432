//! Names with a fixed set of values: services, log levels, log formats, ways to compress.

use std::{fmt, str::FromStr};

/// A text that is none of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownName;

macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $type {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, as settings spell it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.iter().copied().find(|one| one.name() == text).ok_or(UnknownName)
            }
        }
    };
}

names!(
    /// A service, in the order in which services start: each after those that it calls.
    ServiceName {
        /// Tenants, tables, membership, placement.
        ControlPlane = "control-plane",
        /// Column segments and partial queries.
        HotTier = "hot-tier",
        /// From the log into the hot tier.
        StreamIngester = "stream-ingester",
        /// Progress and freshness.
        Watermark = "watermark",
        /// Load and moves.
        Rebalancer = "rebalancer",
        /// Queries.
        QueryApi = "query-api",
        /// Events.
        Gateway = "gateway",
    }
);
names!(
    /// The least severe level that is logged.
    LogLevel {
        /// What needs a person.
        Error = "error",
        /// What may need one.
        Warn = "warn",
        /// What changes the state of a service.
        Info = "info",
        /// Each request.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
);
names!(
    /// How a log line looks.
    LogFormat {
        /// One JSON object a line.
        Json = "json",
        /// For reading at a terminal.
        Text = "text",
    }
);
names!(
    /// How records of the event log travel and lie on brokers.
    Compression {
        /// As they are.
        None = "none",
        /// Fast, for little CPU.
        Lz4 = "lz4",
        /// Smaller, for more CPU.
        Zstd = "zstd",
    }
);
