//! Tenants of one portal share no fate.
