//! One scene for all tests of a program: they play on it one after the other, and each finds it as the first one did.
//!
//! Owns the testbed between two tests and the runtime that everything of it lives on. A test that fails takes the
//! testbed with it: the next one gets a new one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::Result;
use tokio::runtime::{Builder, Runtime};

use crate::testbed::Testbed;

static STAGE: Mutex<Option<Testbed>> = Mutex::new(None);
static SCENES: AtomicU32 = AtomicU32::new(0);
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().enable_all().build().expect("a runtime can be made"));

/// Plays `test`, which may kill, stop and change what it likes as long as [`Testbed::restore`] can mend it: what else it
/// adds it takes away.
pub fn play(test: impl AsyncFnOnce(&Testbed) -> Result<()>) -> Result<()> {
    let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    RUNTIME.block_on(async {
        let testbed = match stage.take() {
            Some(testbed) => testbed,
            None => Testbed::up(&format!("scene-{}", SCENES.fetch_add(1, Ordering::Relaxed) + 1)).await?,
        };
        let outcome = async {
            testbed.restore().await?;
            test(&testbed).await
        };
        match outcome.await {
            Ok(()) => *stage = Some(testbed),
            Err(error) => {
                testbed.keep_logs();
                return Err(error);
            }
        }
        Ok(())
    })
}
