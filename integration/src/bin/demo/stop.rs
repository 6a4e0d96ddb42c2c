//! Ctrl-C, SIGTERM and a closed terminal: asked to stop, the demo tidies up.

use fleet_integration::{Context, Failure};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{Signal, SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether somebody wants the demo to end.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// An error once somebody wants the demo to end: for loops that wait.
pub(crate) fn check() -> Result<(), Failure> {
    if asked() { Err(Failure::new("interrupted")) } else { Ok(()) }
}

/// Listens for signals from now on.
pub(crate) fn listen() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    // Registered here, so that no signal finds the default action after this returns.
    let registered = runtime.block_on(async { kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>() });
    let mut signals = registered.context("listening for signals")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let any = signals.iter_mut().map(|signal: &mut Signal| Box::pin(signal.recv()));
            futures_util::future::select_all(any).await;
        });
        ASKED.store(true, Ordering::Relaxed);
        // Stay: with the runtime would go the handlers' reader. A second signal changes nothing, for tidying up is
        // bounded in time.
        std::thread::park();
    });
    Ok(())
}
