//! What is given out is judged by one decision, and audited.
