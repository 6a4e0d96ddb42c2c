//! Who may use the API: whoever has the admin token.

use super::problem::Problem;
use crate::services::Services;
use crate::vault::hash_token;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::middleware::Next;
use actix_web::{ResponseError, web};

/// The token of `Authorization: Bearer TOKEN`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (left, right)| differ | (left ^ right)) == 0
}

fn check(headers: &HeaderMap, admin_token_hash: &[u8]) -> Result<(), Problem> {
    let Some(token) = bearer(headers) else {
        return Err(Problem::unauthorized("send the header Authorization: Bearer TOKEN"));
    };
    if same(&hash_token(token), admin_token_hash) {
        Ok(())
    } else {
        Err(Problem::unauthorized("this token is not the admin token"))
    }
}

/// Middleware that lets nobody pass without the admin token.
///
/// # Errors
/// Those of the handlers; a missing token is an answer, not an error.
pub async fn require_admin<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let allowed = match request.app_data::<web::Data<Services>>() {
        Some(services) => check(request.headers(), &services.admin_token_hash),
        None => Err(Problem::internal("the application has no services")),
    };
    match allowed {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(problem) => Ok(request.into_response(problem.error_response()).map_into_right_body()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn headers(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn only_the_right_bearer_token_passes() {
        let hash = hash_token("right");
        assert!(check(&headers("Bearer right"), &hash).is_ok());
        assert!(check(&headers("bearer  right"), &hash).is_ok());
        for wrong in ["Bearer wrong", "Bearer ", "Bearer", "Basic right", "right", ""] {
            assert!(check(&headers(wrong), &hash).is_err(), "{wrong:?}");
        }
        assert!(check(&HeaderMap::new(), &hash).is_err());
    }
}
