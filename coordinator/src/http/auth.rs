//! Who may use the API: whoever has a token that is good, for what that allows. A change is judged when it is there whole:
//! its body may come slowly, and the token may end meanwhile.

use super::body;
use super::fleet;
use super::problem::Problem;
use super::reach;
use crate::access::{allows, class};
use crate::request;
use crate::services::Services;
use crate::tokens::Token;
use crate::vault::hash_token;
use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpRequest, ResponseError, web};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The token of `Authorization: Bearer TOKEN`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// The token of a request, if that allows what it asks for. Of a change the body is there then.
async fn check(request: &mut ServiceRequest) -> Result<Arc<Token>, Problem> {
    let services = request.app_data::<web::Data<Services>>().cloned();
    let services = services.ok_or_else(|| Problem::internal("the application has no services"))?;
    let given = bearer(request.headers());
    let Some(token) = given.and_then(|token| services.api_tokens.find(&hash_token(token))) else {
        count_stranger(&services, request.request())?;
        let none = || Problem::unauthorized("send the header Authorization: Bearer TOKEN");
        return Err(given.map_or_else(none, |_| not_good()));
    };
    if let Some(current) = request::current() {
        current.set_token(Arc::clone(&token));
    }
    services.rates.of_token(&token.bucket, token.id.is_none(), Instant::now()).map_err(Problem::too_many)?;
    // As the router reads it.
    let path = request.match_info().as_str().strip_prefix("/v1/").unwrap_or_default().to_owned();
    if !allows(token.scope, request.method(), class(&path)) {
        return Err(Problem::forbidden(format!(
            "the scope {} of this token does not allow that",
            token.scope.as_str()
        )));
    }
    if *request.method() != Method::GET {
        let limit = if path == "fleet" { fleet::LARGEST } else { body::LIMIT };
        let body = body::collect_up_to(limit, request.take_payload());
        let body = tokio::select! {
            biased;
            body = body => body?,
            () = token.ended() => return Err(not_good()),
        };
        request.set_payload(Payload::from(body));
    }
    if let Some(limit) = &token.labels {
        reach::check(&services, limit, request.method(), &path).await?;
    }
    if token.is_good() { Ok(token) } else { Err(not_good()) }
}

/// Counts a request without a good token.
///
/// # Errors
/// 429.
pub(super) fn count_stranger(services: &Services, request: &HttpRequest) -> Result<(), Problem> {
    let address = request.peer_addr().map(|peer| peer.ip());
    services.rates.of_address(address, Instant::now()).map_err(Problem::too_many)
}

fn not_good() -> Problem {
    Problem::unauthorized("this token is not known, was revoked, or has expired")
}

/// Middleware that lets nobody pass without a token that allows it. What is read ends when the token is not good any more, be
/// it a wait or a stream; a change that has begun is carried out.
///
/// # Errors
/// Those of the handlers, and 401 for a wait whose token has ended; a missing token is an answer, not an error.
pub(super) async fn require_token<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<BoxBody>>, actix_web::Error> {
    let token = match check(&mut request).await {
        Ok(token) => token,
        Err(problem) => return Ok(request.into_response(problem.error_response()).map_into_right_body()),
    };
    if *request.method() != Method::GET {
        return Ok(next.call(request).await?.map_into_boxed_body().map_into_left_body());
    }
    let response = tokio::select! {
        biased;
        response = next.call(request) => response?,
        () = token.ended() => return Err(not_good().into()),
    };
    Ok(response.map_body(|_, body| match body.size() {
        BodySize::Stream => EitherBody::left(BoxBody::new(Guarded::new(body, token))),
        _ => EitherBody::left(body.boxed()),
    }))
}

/// A body that breaks off when the token of who reads it is not good any more.
struct Guarded<B> {
    body: Pin<Box<B>>,
    ended: Pin<Box<dyn Future<Output = ()>>>,
}

impl<B: MessageBody> Guarded<B> {
    fn new(body: B, token: Arc<Token>) -> Self {
        Self { body: Box::pin(body), ended: Box::pin(async move { token.ended().await }) }
    }
}

impl<B: MessageBody> MessageBody for Guarded<B> {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(io::Error::other("the token is not good any more").into())));
        }
        self.body.as_mut().poll_next(context).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn only_a_bearer_token_is_one() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        for right in ["Bearer right", "bearer  right"] {
            assert_eq!(of(right).as_deref(), Some("right"));
        }
        for wrong in ["Bearer ", "Bearer", "Basic right", "right", ""] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
