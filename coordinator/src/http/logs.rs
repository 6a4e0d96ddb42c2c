//! A job's log as JSON lines. It is read from the ledger piece by piece, so a log of any length takes little memory.

use super::jobs;
use super::params::Params;
use super::problem::Problem;
use crate::db::Database;
use crate::db::logs::{LogChunk, chunks_after};
use crate::services::Services;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use futures_util::stream;
use std::io;
use utoipa::OpenApi;
use uuid::Uuid;

/// Chunks that are read at once, at most: of a log that trickled in each has a line or two.
const CHUNKS_A_READ: i64 = 500;
/// Packed data that is read at once, and the rest of its last chunk: a large chunk has thousands of lines.
const BYTES_A_READ: i64 = 64 * 1024;
/// A piece of the answer ends behind the chunk that makes it this large.
const BYTES_A_PIECE: usize = 1024 * 1024;

/// What the document says of it.
#[derive(OpenApi)]
#[openapi(paths(read))]
pub(super) struct Api;

/// A job's log, a JSON object a line
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/logs",
    params(
        ("after_seq" = Option<i64>, Query, description = "Only lines behind this one."),
        ("limit" = Option<i64>, Query, description = "So many lines at most.", minimum = 1)
    ),
    responses((status = 200, body = String, content_type = "application/x-ndjson"))
)]
pub(super) async fn read(
    services: web::Data<Services>,
    id: web::Path<String>,
    params: Params,
) -> Result<HttpResponse, Problem> {
    params.only(&["after_seq", "limit"])?;
    let after_seq = params.number("after_seq", i64::MIN..=i64::MAX)?;
    let limit = params.number("limit", 1..=i64::MAX)?;
    let job_id = jobs::find(&services, &id).await?.new.id;
    let place = Place { job_id, after_seq, left: limit.unwrap_or(i64::MAX) };
    let database = services.database.clone();
    // A failure after the first byte can only cut the answer off, which the missing end of the chunked body shows.
    let lines = stream::try_unfold(place, move |place| next_piece(database.clone(), place));
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines))
}

/// How far the answer is.
struct Place {
    job_id: Uuid,
    after_seq: Option<i64>,
    left: i64,
}

async fn next_piece(database: Database, mut place: Place) -> Result<Option<(Bytes, Place)>, io::Error> {
    if place.left == 0 {
        return Ok(None);
    }
    let (job_id, after_seq) = (place.job_id, place.after_seq);
    let rows = place.left.min(CHUNKS_A_READ);
    // Chunks may be compacted between two reads: each begins behind the last line, whichever chunk has the next.
    let chunks = database.read(async |reader| chunks_after(reader, job_id, after_seq, rows, BYTES_A_READ).await).await;
    let chunks = chunks.map_err(io::Error::other)?;
    if chunks.is_empty() {
        return Ok(None);
    }
    let mut piece = Vec::new();
    for chunk in &chunks {
        if place.left == 0 || piece.len() >= BYTES_A_PIECE {
            break;
        }
        place.take(chunk, &mut piece)?;
    }
    Ok(Some((piece.into(), place)))
}

impl Place {
    /// Adds the lines of `chunk` that are wanted to `piece`; moves on behind them. A chunk's lines are consecutive, so a line's place
    /// tells its `seq`.
    fn take(&mut self, chunk: &LogChunk, piece: &mut Vec<u8>) -> io::Result<()> {
        let text = chunk.unpack()?;
        for (seq, line) in (chunk.first_seq..=chunk.last_seq).zip(text.split_inclusive(|byte| *byte == b'\n')) {
            if self.left == 0 {
                break;
            }
            if self.after_seq.is_none_or(|after| seq > after) {
                piece.extend_from_slice(line);
                self.after_seq = Some(seq);
                self.left -= 1;
            }
        }
        if self.left > 0 {
            // Also if the row has fewer lines than it says: it must not be read for ever.
            self.after_seq = Some(chunk.last_seq);
        }
        Ok(())
    }
}
