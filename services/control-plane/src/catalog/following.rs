//! What other processes on the same metadata do: their changes of tables and of the placement map are taken in, and what they
//! left half-done is found.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use metadata::MetadataError;
use types::ApiError;

use super::ControlPlane;
use crate::errors;

impl ControlPlane {
    /// Takes in what changed in metadata since the last call, and who lives. Changes of this process are among them and change
    /// nothing.
    ///
    /// # Errors
    /// `UNAVAILABLE` where metadata cannot be read; what was taken in before stays, and the next call misses nothing.
    pub async fn follow(&self) -> Result<(), ApiError> {
        let followed = async {
            self.take_in_changes().await?;
            self.look_at_nodes().await
        };
        followed.await.map_err(|error| errors::from_metadata(&error))
    }

    pub(super) async fn take_in_changes(&self) -> Result<(), MetadataError> {
        let inner = &self.inner;
        let mut followed = inner.followed.lock().await;
        let changes = inner.store.changes(*followed).await?;
        if changes.version == *followed {
            return Ok(());
        }
        let placement = inner.store.placement().await?;
        inner.placement.send_if_modified(|known| {
            let newer = placement.version > known.version;
            if newer {
                *known = Arc::new(placement);
            }
            newer
        });
        for stored in changes.tables {
            if stored.ended {
                inner.hide(stored.table.key);
            } else if stored.is_announced() {
                inner.show(stored.table);
            }
        }
        *followed = changes.version;
        Ok(())
    }

    /// Makes the next repair look for what is not announced, also where no announcement of this process failed: another process
    /// may have ended between a change and its announcement.
    pub fn expect_repair(&self) {
        self.inner.repair_due.store(true, Relaxed);
    }
}
