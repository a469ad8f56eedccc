//! Parses, starts, and decides the exit code.

use std::process::ExitCode;

use clap::Parser;
use tenantd::cli::args::Arguments;
use tenantd::cli::{self, Exit};

/// A call is many small allocations that are freed on another thread; the system's allocator waits for locks there.
/// Measured with `cargo bench --bench tools_call`. It asks for no huge pages: with them an idle gateway took 14 MiB more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => return explain(&refusal),
    };
    install_crypto();
    match cli::run(arguments) {
        Ok(exit) => code(exit),
        Err(error) => {
            cli::could_not_run(&format!("{error:#}"));
            code(Exit::CouldNotRun)
        }
    }
}

/// 0 all is well, 1 there are findings, 2 it could not run.
fn code(exit: Exit) -> ExitCode {
    match exit {
        Exit::Fine => ExitCode::SUCCESS,
        Exit::Findings => ExitCode::from(1),
        Exit::CouldNotRun => ExitCode::from(2),
    }
}

/// Help and version were asked for; anything else was not understood.
fn explain(refusal: &clap::Error) -> ExitCode {
    // Nobody is left to be told when even this cannot be printed.
    let _ = refusal.print();
    code(if refusal.use_stderr() { Exit::CouldNotRun } else { Exit::Fine })
}

/// One cryptographic library for everything, chosen before anything can ask for another.
fn install_crypto() {
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    installed.expect("nothing has chosen a provider before main");
}
