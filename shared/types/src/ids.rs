//! Newtypes of the numbers that name things. None of them is ever reused for another thing.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Whose data it is. Comes from the credential alone; [`TenantId::DEFAULT`] where none is configured.
    TenantId(u64)
);
id!(
    /// A table, by name within a tenant. A table deleted and created again keeps its id and rises in [`Generation`].
    TableId(u64)
);
id!(
    /// Which life of a table: 1 at its first creation.
    Generation(u32)
);
id!(
    /// Rises by one with each change of a table's columns or settings; 1 at creation.
    SchemaVersion(u32)
);
id!(
    /// One of the log's fixed partitions, 0-based.
    PartitionId(u32)
);
id!(
    /// Position of a record in its log partition: 0, 1, 2 …, without gaps.
    Offset(u64)
);
id!(
    /// A node of the cluster; 1 on a single machine.
    NodeId(u64)
);
id!(
    /// One life of one appender to the log (a gateway or an embedded log), for its cumulative row counts.
    AppenderId(u64)
);

/// Which log: drawn at random when a log is made and its for good, so that what was made of one log is not taken for what was
/// made of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogIdentity(pub u128);

impl fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogIdentity({self})")
    }
}

impl TenantId {
    /// The tenant of all requests where no authentication is configured.
    pub const DEFAULT: Self = Self(1);
}

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One life of one table: the key of everything that is kept per table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableKey {
    /// The owner.
    pub tenant: TenantId,
    /// The table.
    pub table: TableId,
    /// Which life of it.
    pub generation: Generation,
}
