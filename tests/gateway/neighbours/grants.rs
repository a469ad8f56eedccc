//! A grant belongs to one tenant's life, directory and application.
