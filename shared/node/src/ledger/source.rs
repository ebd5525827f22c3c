//! The ledger of a running node: behind `/api/v1/ledger`, and as gauges.
//!
//! In: the store, the readers of the broker, and what the node adds of its own. Out: a route and a refresh of gauges. One ledger is
//! made at a time, off the runtime's threads, since it reads flash.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fellbeck_ops::http::Refresh;
use fellbeck_store::Store;
use tokio::sync::Mutex;

use super::{Ledger, ReaderSource, fetch, readers};

/// Makes ledgers of a running node. Cloning shares it.
#[derive(Clone)]
pub struct LedgerSource {
    store: Store,
    readers: ReaderSource,
    own: Arc<dyn Fn(&Store) -> Ledger + Send + Sync>,
    // Held across an await on purpose: whoever asks meanwhile waits.
    one: Arc<Mutex<()>>,
}

impl LedgerSource {
    /// `own` gives all but the readers; it must not block for long.
    #[must_use]
    pub fn new(store: &Store, readers: ReaderSource, own: impl Fn(&Store) -> Ledger + Send + Sync + 'static) -> Self {
        Self {
            store: store.clone(),
            readers,
            own: Arc::new(own),
            one: Arc::default(),
        }
    }

    /// The ledger now. `counts_unread` costs reads of flash.
    fn make(&self, counts_unread: bool) -> Ledger {
        let mut ledger = (self.own)(&self.store);
        if let Some(books) = &self.readers {
            let books = books.borrow().clone();
            let store = counts_unread.then_some(&self.store);
            (ledger.readers, ledger.readers_total) = readers(&books, store);
        }
        ledger.closed()
    }

    /// The route of the ledger.
    pub fn routes(&self) -> Router {
        let source = self.clone();
        Router::new().route(fetch::PATH, get(async move || source.answer().await))
    }

    async fn answer(&self) -> Response {
        let _turn = self.one.lock().await;
        let source = self.clone();
        match tokio::task::spawn_blocking(move || source.make(true)).await {
            Ok(ledger) => Json(ledger).into_response(),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the ledger could not be made\n").into_response(),
        }
    }

    /// Sets the gauges of the ledger behind those of `first`.
    #[must_use]
    pub fn refresh(&self, first: Refresh) -> Refresh {
        let source = self.clone();
        Arc::new(move || {
            first();
            source.make(false).publish();
        })
    }
}
