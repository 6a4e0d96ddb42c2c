//! One resource: the methods that it has, and a problem for every other.

use super::problem::Problem;
use actix_web::{Resource, Route, web};

/// The resource at `path`; `allow` lists the methods of `routes` for those who use another.
pub fn resource(path: &str, routes: impl IntoIterator<Item = Route>, allow: &'static str) -> Resource {
    let none_of_them = web::to(move || async move { Err::<&str, _>(Problem::method_not_allowed(allow)) });
    routes.into_iter().fold(web::resource(path), Resource::route).default_service(none_of_them)
}
