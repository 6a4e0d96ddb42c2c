//! The shapes of single values, as the document states them: made of the rules by which they are judged.

use super::super::check::{HIGHEST_CAP, HOOK, LABELS, LINE, NAME};
use super::super::hosts::LISTED;
use super::super::tokens::RESERVED;
use crate::db::jobs::Origin;
use crate::db::{audit, deliveries, runs};
use fleet_wire::crontab::Zone;
use fleet_wire::{Arch, Kind as JobKind, Os, Status};
use serde_json::Value;
use std::borrow::Cow;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, Object, Ref, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// A type that is nothing but a shape in the document: fields refer to it by `#[schema(value_type = …)]`.
macro_rules! shape {
    ($($name:ident: $about:literal, $schema:expr;)+) => {
        $(
            #[doc = $about]
            #[derive(Clone, Copy, Debug)]
            pub(in crate::http) enum $name {}

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    let schema: ObjectBuilder = $schema;
                    schema.description(Some($about)).into()
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    stringify!($name).into()
                }
            }
        )+

        /// All of them, by their names.
        pub(super) fn all() -> Vec<(String, RefOr<Schema>)> {
            vec![$((stringify!($name).to_owned(), $name::schema())),+]
        }
    };
}

shape! {
    Kind: "What a job does.", words(JobKind::ALL.iter().map(|kind| kind.as_str()));
    JobStatus: "Where a job stands; nothing leaves the last three.",
        words(Status::ALL.iter().map(|status| status.as_str()));
    JobOrigin: "Why there is a job.", words(Origin::ALL.iter().map(|origin| origin.as_str()));
    RunOutcome: "What became of a run that was due.", words(runs::Outcome::ALL.iter().map(|outcome| outcome.as_str()));
    HostStatus: "Whether a host's agent was heard of within 90 seconds.", words(["online", "offline"]);
    ListedStatus: "By what hosts are listed.", words(LISTED);
    HostOs: "An operating system.", words(Os::ALL.iter().map(|os| os.as_str()));
    HostArch: "A processor architecture.", words(Arch::ALL.iter().map(|arch| arch.as_str()));
    PauseScope: "What is paused.", words(["fleet", "repository", "host"]);
    Name: "One line without control characters, and without white space around it.",
        text(1, NAME).pattern(Some(line()));
    Line: "One line without control characters, and without white space around it.",
        text(1, LINE).pattern(Some(line()));
    ShortText: "Any text without NUL.", text(0, LINE).pattern(Some(NO_NUL));
    FilledText: "Any text without NUL that is not empty.", text(1, LINE).pattern(Some(NO_NUL));
    Hook: "A command for the host's shell. An empty one is none.", text(0, HOOK).pattern(Some(NO_NUL));
    LabelValue: "Any text without NUL.", text(0, NAME).pattern(Some(NO_NUL));
    Username: "A user's name for HTTP: no colon, no control characters. An empty one is none.",
        text(0, LINE).pattern(Some(format!("^[^:{CONTROL}]*$")));
    SecretLine: "A secret on one line. It is never shown again.",
        text(1, LINE).pattern(Some("^[^\\u0000\\n\\r]+$")).write_only(true);
    GivenToken: "A token that was made for an agent or a script.", text(0, LINE).pattern(Some(NO_NUL));
    GroupName: "The name of a source group, which is the tag of its snapshots.",
        text(1, NAME).pattern(Some(group_name()));
    TimeZone: "The name of a zone in the IANA database.", words(Zone::names());
    Cron: "A crontab(5) expression as Debian's cron reads it: five fields, or a name such as @daily.",
        text(1, LINE).pattern(Some(super::cron::pattern()));
    CheckSubset: "What of a repository a check reads: a part (1/10), a percentage (5%) or a size (500M). Parts beyond the \
                  99th are taken too.",
        text(1, LINE).pattern(Some(subset()));
    RepositoryUrl: "Where a repository is, in restic's notation, without credentials.",
        text(1, LINE).pattern(Some(repository_url()));
    WebhookUrl: "Where webhooks go to: http or https, without user and fragment.",
        text(1, LINE).pattern(Some(webhook_url()));
    WebhookSecret: "`whsec_` and 24 to 64 bytes in base64. It is never shown again.",
        text(1, LINE).pattern(Some(webhook_secret())).write_only(true);
    MailAddress: "An address of e-mail, with or without a name before it: `Ops <ops@example.org>`.",
        text(3, NAME).pattern(Some(format!("^[^{CONTROL}{SPACE}]([^{CONTROL}]*[^{CONTROL}{SPACE}])?$")));
    DeliveryStatus: "How a delivery stands.", words(deliveries::Status::ALL.iter().map(|status| status.as_str()));
    ChannelKind: "How a channel tells.", words(["webhook", "email"]);
    HostPath: "An absolute path, as the host's system writes it.",
        text(1, LINE).pattern(Some("^(/|\\\\\\\\|[A-Za-z]:[\\\\/])[^\\u0000]*$"));
    LabelFilter: "A label that a host carries: `name=value`.",
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[^\\u0000=]*=[^\\u0000]*$"));
    AnyText: "Any text without NUL.", any_text();
    TokenName: "One line without control characters, and without white space around it; some names are reserved.",
        text(1, NAME).pattern(Some(token_name()));
    HostLimit: "Labels by their names, at least one.", labels().min_properties(Some(1));
    WantedLabels: "Labels by their names.", labels_of(any_text(), "AnyText").max_properties(None);
    AuditOutcome: "What became of a request.", words(audit::Outcome::ALL.iter().map(|outcome| outcome.as_str()));
    Nothing: "Nothing.", ObjectBuilder::new().schema_type(Type::Null);
    Kbps: "A bandwidth cap in KiB a second; 0 is none.", number(0, HIGHEST_CAP);
    JobCap: "A bandwidth cap of this job in KiB a second; 0 is none, also where its host has one.", number(i64::MIN, i64::MAX);
    NewSourceGroup: "As `SourceGroupSettings`, with a name.", ObjectBuilder::new();
    Labels: "Labels by their names.", labels();
    FleetDocument: "The fleet as one document.", ObjectBuilder::new();
    FleetPlan: "What a document changes.", ObjectBuilder::new();
}

/// No text may hold NUL, which PostgreSQL can't store.
const NO_NUL: &str = "^[^\\u0000]*$";
/// Control characters (Cc), inside of brackets.
const CONTROL: &str = "\\u0000-\\u001f\\u007f-\\u009f";
/// White space that is no control character, inside of brackets.
const SPACE: &str = " \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
fn words<W: Into<String>>(words: impl IntoIterator<Item = W>) -> ObjectBuilder {
    let words = words.into_iter().map(|word| Value::String(word.into()));
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

/// A text of so many characters.
fn text(shortest: usize, longest: usize) -> ObjectBuilder {
    let shortest = Some(shortest).filter(|shortest| *shortest > 0);
    ObjectBuilder::new().schema_type(Type::String).min_length(shortest).max_length(Some(longest))
}

/// A whole number of 64 bits.
fn number(lowest: i64, highest: i64) -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
    let number = ObjectBuilder::new().schema_type(Type::Integer).format(Some(format));
    number.minimum(Some(lowest)).maximum(Some(highest))
}

fn line() -> String {
    format!("^[^{CONTROL}{SPACE}]([^{CONTROL}]*[^{CONTROL}{SPACE}])?$")
}

fn token_name() -> String {
    format!("^(?!({})$){}", RESERVED.join("|"), line().trim_start_matches('^'))
}

/// As a line, without commas, and not `.` or `..`, which no URL could name.
fn group_name() -> String {
    format!("^(?!\\.{{1,2}}$)[^,{CONTROL}{SPACE}]([^,{CONTROL}]*[^,{CONTROL}{SPACE}])?$")
}

/// What `is_check_subset` takes, but for parts beyond the 99th.
fn subset() -> String {
    let percentage = "(0*[1-9][0-9]?(\\.[0-9]*)?|0*100(\\.0*)?|0*\\.0*[1-9][0-9]*)%";
    let size = "0*[1-9][0-9]{0,8}[KkMmGgTt]";
    let three_digits = "1[0-9][0-9]|2[0-4][0-9]|25[0-6]";
    let mut parts: Vec<String> = (1..=9).map(|part| format!("{part}/([{part}-9]|[1-9][0-9]|{three_digits})")).collect();
    parts.push(format!("[1-9][0-9]/({three_digits})"));
    parts.extend((1..=8).map(|tens| format!("{tens}[0-9]/[{}-9][0-9]", tens + 1)));
    let alike = |tens| (0..=9).map(move |ones| format!("{tens}{ones}/{tens}[{ones}-9]"));
    parts.extend((1..=9).flat_map(alike));
    format!("^({percentage}|{size}|{})$", parts.join("|"))
}

/// What `repository_url` takes, but for hosts with white space in their names and the like.
fn repository_url() -> String {
    let rest = format!("([^{CONTROL}]*[^{CONTROL}{SPACE}])?");
    let path = format!("(/|\\\\\\\\|[A-Za-z]:[\\\\/]){rest}");
    let port = "0*([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
    let host = format!("[^/?#@:\\[{CONTROL}{SPACE}]+");
    let server = format!("{host}(:{port})?([/?#]{rest})?");
    let any = format!("[^{CONTROL}{SPACE}]{rest}");
    let any = format!("(b2|azure|gs|swift|rclone):({any}|[{SPACE}]+{any})");
    format!(
        "^((local:)?{path}|rest:https?://{server}|s3:(https?://)?{server}|sftp:(//)?({host}@)?{host}([:/]{rest})?|{any})$"
    )
}

/// What `webhook_url` takes, but for hosts with rarer characters in their names.
fn webhook_url() -> String {
    let port = "0*([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
    let host = "([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\])";
    format!("^https?://{host}(:{port})?(/[!$-;=@-_a-z|~]*)?(\\?[!$-;=?-~]*)?$")
}

/// Base64 of 24 to 64 bytes.
fn webhook_secret() -> String {
    let (any, four) = ("[A-Za-z0-9+/]", "([A-Za-z0-9+/]{4})");
    format!("^whsec_({four}{{8,21}}|{four}{{8,21}}{any}[AQgw]==|{four}{{8,20}}{any}{{2}}[AEIMQUYcgkosw048]=)$")
}

fn any_text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(NO_NUL))
}

fn labels() -> ObjectBuilder {
    let name = format!("^[^={CONTROL}{SPACE}]([^={CONTROL}]*[^={CONTROL}{SPACE}])?$");
    labels_of(text(1, NAME).pattern(Some(name)), "LabelValue").max_properties(Some(LABELS))
}

fn labels_of(name: ObjectBuilder, value: &str) -> ObjectBuilder {
    let value: RefOr<Schema> = Ref::from_schema_name(value).into();
    let labels = ObjectBuilder::new().schema_type(Type::Object).property_names(Some(name.build()));
    labels.additional_properties(Some(value))
}

/// Any JSON at all.
pub(in crate::http) fn anything() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).build()
}
