//! Every request has an id, which stands in its answer and in what is logged about it.

use super::audit;
use crate::request::{self, Request};
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;
use uuid::Uuid;

/// The header that holds it.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request that is being answered; a fresh one outside of any.
pub fn current() -> String {
    request::current().map_or_else(new, |request| request.id.clone())
}

/// An id that no other request has: a random number of this process and a count, which together make a UUID.
fn new() -> String {
    static PROCESS: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (process, _) = PROCESS.as_u64_pair();
    // The two bits of the variant stay as they are; a count comes to them never.
    Uuid::from_u64_pair(process, 1 << 63 | COUNT.fetch_add(1, Ordering::Relaxed)).to_string()
}

/// Middleware that gives each request an id and logs how it ended.
///
/// # Errors
/// Those of the handlers.
pub async fn assign(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = new();
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let current = Arc::new(Request::new(id.clone(), audit::change(request.request())));
    let mut response = request::within(current, next.call(request)).await?;
    log::debug!(
        request:% = id, method:%, path, status = response.status().as_u16(),
        milliseconds:% = began.elapsed().as_millis();
        "answered"
    );
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    Ok(response)
}
