//! The corpus: exports, overlays and folders, good and hostile, built in code; every finding's text in snapshots.

mod archives;
mod corpus;
mod findings;
mod good;
mod hostile;
mod login;
mod namesakes;
mod reach;
mod samples;
mod written;
