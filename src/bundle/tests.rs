//! The corpus: exports, overlays and folders, valid and hostile, built in code; the text of every
//! finding is in snapshots.

mod archives;
mod corpus;
mod data_fingerprints;
mod findings;
mod good;
mod hostile;
mod login;
mod lookalikes;
mod samples;
mod written;
