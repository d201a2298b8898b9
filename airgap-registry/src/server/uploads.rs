//! The uploads that this process has in hand.
//!
//! Invariant: one request at a time writes to an upload; its running digest lives here, and is made again from the
//! file when the process was restarted. Called by the upload handlers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bundle::oci::RepositoryName;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::problem::Problem;
use crate::store::{Store, Upload, UploadId};

/// How long a request waits for another one, whose client has gone, to let go of the upload.
const PATIENCE: Duration = Duration::from_secs(5);

/// `None` once the upload was finished or cancelled.
type Slot = Arc<AsyncMutex<Option<Upload>>>;

/// All uploads in hand.
#[derive(Default)]
pub(crate) struct Uploads {
    slots: Mutex<HashMap<UploadId, Slot>>,
    /// Held while an upload is taken up from the disk, so that no two requests ever write to one file.
    resuming: AsyncMutex<()>,
}

/// From how many uploads on those are let go that no request is using; they are taken up from the disk again.
const MANY: usize = 256;

/// An upload that this request alone may use.
pub(crate) type Held = OwnedMutexGuard<Option<Upload>>;

impl Uploads {
    /// Keeps a new upload.
    pub(crate) fn insert(&self, upload: Upload) {
        let id = upload.id().clone();
        let mut slots = self.slots();
        if slots.len() >= MANY {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.insert(id, Arc::new(AsyncMutex::new(Some(upload))));
    }

    /// Forgets an upload that was finished or cancelled.
    pub(crate) fn forget(&self, id: &UploadId) {
        self.slots().remove(id);
    }

    /// Takes an upload of this repository. One of another repository is unknown.
    pub(crate) async fn take(&self, store: &Arc<Store>, name: &RepositoryName, id: &UploadId) -> Result<Held, Problem> {
        let slot = match self.slot(id) {
            Some(slot) => slot,
            None => self.resume(store, id).await?,
        };
        let held = tokio::time::timeout(PATIENCE, slot.lock_owned()).await.map_err(|_| Problem::busy_upload())?;
        match &*held {
            Some(upload) if upload.repository() == name => Ok(held),
            _ => Err(Problem::unknown_upload()),
        }
    }

    async fn resume(&self, store: &Arc<Store>, id: &UploadId) -> Result<Slot, Problem> {
        let _alone = self.resuming.lock().await;
        if let Some(slot) = self.slot(id) {
            return Ok(slot);
        }
        let (store, wanted) = (Arc::clone(store), id.clone());
        let resumed = super::blocking(move || store.resume_upload(&wanted)).await?;
        self.insert(resumed.ok_or_else(Problem::unknown_upload)?);
        self.slot(id).ok_or_else(Problem::unknown_upload)
    }

    fn slot(&self, id: &UploadId) -> Option<Slot> {
        self.slots().get(id).cloned()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<UploadId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
