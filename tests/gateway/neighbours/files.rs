//! What lies in the tenants folder takes nothing from others.
