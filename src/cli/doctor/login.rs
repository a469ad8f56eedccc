//! The identity provider: reachable, and right about directory, app, secret and redirect URI.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::clock::OtherClock;
use super::patient::{Patient, PatientTenant};
use super::verdict::{DoctorVerdict, Examination};
use crate::base::clock::SystemClock;
use crate::identity::{self, AppExamination, Brand, Error, Provider, Providers, Registration};
use crate::spec::{LoginSpec, TenantSpec};
use crate::telemetry::metrics::Metrics;

const LOGIN: Examination = Examination::Login;
const AT_ONCE: usize = 8;
const MAX_TENANTS: usize = 16;

/// What was found of the logins, and the provider's clock.
pub(super) struct LoginResults {
    pub(super) verdicts: Vec<DoctorVerdict>,
    pub(super) clocks: Vec<OtherClock>,
}

/// A tenant with a login.
struct LoginCase<'a> {
    tenant: &'a PatientTenant,
    spec: &'a TenantSpec,
    login: &'a Arc<LoginSpec>,
}

/// Examines the logins of all tenants that have one.
pub(super) async fn examine(patient: &Patient) -> LoginResults {
    let authority = patient.settings.entra_authority.clone();
    let providers = Providers::new(authority, SystemClock::shared(), Arc::new(Metrics::new()));
    let cases = patient.tenants.iter().filter_map(|tenant| {
        let spec = tenant.spec.as_ref()?;
        Some(LoginCase { tenant, spec, login: spec.access.login.as_ref()? })
    });
    let cases: Vec<_> = cases.collect();
    let mut found = LoginResults { verdicts: Vec::new(), clocks: Vec::new() };
    if cases.is_empty() && patient.is_one_tenant {
        let why = match patient.tenants.iter().any(|tenant| tenant.spec.is_some()) {
            true => "this tenant has no login",
            false => "the tenant's files cannot be read, so its app is not known",
        };
        found.verdicts.push(DoctorVerdict::not_checked(LOGIN, "no-login", "the login", why));
    }
    if cases.len() > MAX_TENANTS {
        let why = format!("{} more logins; name a tenant", cases.len() - MAX_TENANTS);
        found.verdicts.push(DoctorVerdict::not_checked(LOGIN, "login-unknown", "other tenants", why));
    }
    let examined = cases.iter().take(MAX_TENANTS).map(async |case| {
        let provider = Provider::new(&providers, case.login, &case.spec.public_url);
        provider.examine().await
    });
    let examined: Vec<AppExamination> = stream::iter(examined).buffered(AT_ONCE).collect().await;
    for (case, app) in cases.iter().zip(examined) {
        let brand = identity::find_brand(&case.login.provider);
        found.verdicts.extend(case.judge(brand, &app));
        if found.clocks.is_empty() {
            let clock = app.clock.map(|reading| OtherClock { owner: brand.name.to_owned(), reading });
            found.clocks.extend(clock);
        }
    }
    found
}

impl LoginCase<'_> {
    fn judge(&self, brand: &Brand, app: &AppExamination) -> Vec<DoctorVerdict> {
        let place = &self.tenant.name;
        if let Err(error) = &app.directory {
            return vec![self.judge_error(brand, error)];
        }
        let mut verdicts = vec![DoctorVerdict::ok(
            LOGIN,
            "provider-answers",
            place,
            format!("{} answers and knows the directory", brand.name),
        )];
        // One right secret is enough; a wrong one beside it is to be removed.
        let some_is_right = app.secrets.iter().any(Result::is_ok);
        for (number, tried) in app.secrets.iter().enumerate() {
            let which =
                if app.secrets.len() > 1 { format!(" (number {})", number + 1) } else { String::new() };
            verdicts.push(match tried {
                Ok(()) => DoctorVerdict::ok(
                    LOGIN,
                    "secret-right",
                    place,
                    format!("{} takes the client secret{which}", brand.name),
                ),
                Err(error) if some_is_right => DoctorVerdict::warning(
                    LOGIN,
                    "secret-old",
                    place,
                    format!("{} refuses the client secret{which}: {error}", brand.name),
                )
                .meaning("logins work with the other one")
                .advice("remove the refused one from the tenant's file"),
                Err(error) => self.judge_error(brand, error),
            });
        }
        verdicts.push(self.judge_redirect_uri(brand, &app.redirect_uri));
        verdicts
    }

    /// An error that keeps everybody from logging in, or one that only keeps us from knowing.
    fn judge_error(&self, brand: &Brand, error: &Error) -> DoctorVerdict {
        let (place, name, app) = (&self.tenant.name, brand.name, brand.app);
        let client_id = self.login.provider.client_id();
        let fault = |code: &'static str, found: String| {
            DoctorVerdict::fault(LOGIN, code, place, found).meaning("nobody can log in")
        };
        match error.class() {
            "down" => fault("provider-down", format!("{name} does not answer: {error}")).advice(
                "check the way out of this machine (DNS, firewall, HTTPS_PROXY), and the provider's status page",
            ),
            "directory_unknown" => fault("directory-unknown", format!("{name} does not know the directory: {error}"))
                .advice(format!("copy the directory (tenant) id of the {app} into the tenant's file")),
            "app_unknown" => {
                fault("app-unknown", format!("{name} does not know the app {client_id} in this directory: {error}"))
                    .advice(format!("compare the application (client) id and the directory with the {app}"))
            }
            "secret_expired" => fault("secret-expired", format!("the client secret has expired: {error}"))
                .advice(format!(
                    "make a new one in the {app}, under Certificates & secrets, and write its value into the \
                     tenant's file or variable"
                )),
            "secret_wrong" | "secret_missing" => {
                fault("secret-wrong", format!("{name} refuses the client secret: {error}")).advice(format!(
                    "copy the secret's value (not its id) from the {app}, under Certificates & secrets"
                ))
            }
            _ => DoctorVerdict::not_checked(
                LOGIN,
                "secret-unknown",
                place,
                format!("{name} does not tell without a person whether the secret is right: {error}"),
            ),
        }
    }

    fn judge_redirect_uri(&self, brand: &Brand, registration: &Registration) -> DoctorVerdict {
        let place = &self.tenant.name;
        let uri = self.spec.public_url.callback_url();
        match registration {
            Registration::Registered => {
                DoctorVerdict::ok(LOGIN, "redirect-uri-registered", place, format!("{uri} is registered"))
            }
            Registration::Missing => {
                DoctorVerdict::fault(LOGIN, "redirect-uri-missing", place, format!("{uri} is not registered"))
                    .meaning(format!("everybody ends at an error page: {}", brand.redirect_uri_error))
                    .advice(format!("register exactly this redirect URI at {}", brand.redirect_uri_place))
            }
            Registration::Unknown(why) => DoctorVerdict::not_checked(
                LOGIN,
                "redirect-uri-unknown",
                place,
                format!(
                    "whether {uri} is registered cannot be known without a person ({why}); compare it at {}",
                    brand.redirect_uri_place
                ),
            ),
        }
    }
}
