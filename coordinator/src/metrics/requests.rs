//! What REST clients ask, by the pattern of the route: paths and methods that nobody has made a route for share a series.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// How long an answer takes: up to the limits of reads and writes, in seconds.
const TIMES: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0];
/// The methods that there are; what else a client makes up is one more.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// A method or a route that there is not.
const NONE: &str = "none";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: String,
}

/// See the module's text.
#[derive(Debug)]
pub struct Requests {
    answered: Family<Answered, Counter>,
    times: Family<Asked, Histogram>,
}

impl Requests {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let times = Family::<Asked, Histogram>::new_with_constructor(|| Histogram::new(TIMES));
        let requests = Self { answered: Family::default(), times };
        registry.register(
            "http_requests",
            "Requests that were answered, by method, route and status",
            requests.answered.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "From a request's head until the head of its answer; those that ask to wait (?wait=) are left out",
            Unit::Seconds,
            requests.times.clone(),
        );
        requests
    }

    /// One is answered, after a time that counts unless it was asked to wait.
    pub(crate) fn answered(&self, method: &str, route: Option<String>, status: u16, took: Option<Duration>) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or(NONE);
        let route = route.unwrap_or_else(|| NONE.to_owned());
        if let Some(took) = took {
            self.times.get_or_create(&Asked { method, route: route.clone() }).observe(took.as_secs_f64());
        }
        self.answered.get_or_create(&Answered { method, route, status }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::scrape::encoded;
    use crate::metrics::tests::has;

    #[test]
    fn what_clients_make_up_makes_no_series() {
        let mut registry = Registry::with_prefix("fleet");
        let requests = Requests::new(&mut registry);
        for number in 0..1_000 {
            requests.answered(&format!("MADE-UP-{number}"), None, 405, Some(Duration::from_millis(2)));
        }
        requests.answered("GET", Some("/v1/jobs/{id}".to_owned()), 200, None);
        let text = encoded(&[&registry]);
        for line in [
            r#"fleet_http_requests_total{method="none",route="none",status="405"} 1000"#,
            r#"fleet_http_requests_total{method="GET",route="/v1/jobs/{id}",status="200"} 1"#,
            r#"fleet_http_request_duration_seconds_count{method="none",route="none"} 1000"#,
        ] {
            has(&text, line);
        }
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 2 + TIMES.len() + 1 + 2, "{text}");
    }
}
