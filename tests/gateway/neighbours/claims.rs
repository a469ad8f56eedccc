//! Nobody takes another's name, prefix or host.
