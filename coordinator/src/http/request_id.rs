//! Every request has an id, which stands in its answer and in what is logged about it.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use std::time::Instant;
use uuid::Uuid;

/// The header that holds it.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that is being answered; a fresh one outside of any.
pub fn current() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_else(|_| Uuid::new_v4().to_string())
}

/// Middleware that gives each request an id and logs how it ended.
///
/// # Errors
/// Those of the handlers.
pub async fn assign(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = Uuid::new_v4().to_string();
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let mut response = CURRENT.scope(id.clone(), next.call(request)).await?;
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
