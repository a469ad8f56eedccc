//! The entry point: parses the command line, runs the command and maps its result to an exit code.

use std::process::ExitCode;

use clap::Parser;
use tenantd::base::{handover, inherited_sockets};
use tenantd::cli::args::Arguments;
use tenantd::cli::{self, Exit};

/// The global allocator.
///
/// A call makes many small allocations that are freed on another thread, where the system's
/// allocator contends for locks; measured with `cargo bench --bench tools_call`. Huge pages are
/// off, since with them an idle gateway took 14 MiB more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => return explain(&refusal),
    };
    if let Err(error) = inherited_sockets::receive() {
        cli::print_fatal(&error.to_string());
        return code(Exit::CouldNotRun);
    }
    if let Err(error) = handover::receive() {
        cli::print_fatal(&format!("the gateway before this one cannot be asked: {error}"));
        return code(Exit::CouldNotRun);
    }
    install_crypto();
    match cli::run(arguments) {
        Ok(exit) => code(exit),
        Err(error) => {
            let reason = format!("{error:#}");
            handover::refuse(&reason);
            cli::print_fatal(&reason);
            code(Exit::CouldNotRun)
        }
    }
}

/// Returns the exit code: 0 for success, 1 for findings, 2 if the command could not run.
fn code(exit: Exit) -> ExitCode {
    match exit {
        Exit::Fine => ExitCode::SUCCESS,
        Exit::Findings => ExitCode::from(1),
        Exit::CouldNotRun => ExitCode::from(2),
    }
}

/// Prints clap's output: help and version on request, otherwise a usage error.
fn explain(refusal: &clap::Error) -> ExitCode {
    // If even this cannot be printed, there is no way left to report it.
    let _ = refusal.print();
    code(if refusal.use_stderr() { Exit::CouldNotRun } else { Exit::Fine })
}

/// Installs the process-wide crypto provider before any code can select another.
fn install_crypto() {
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    installed.expect("nothing has chosen a provider before main");
}
