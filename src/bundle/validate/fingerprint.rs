//! The access fingerprint: a digest of everything that decides who may call.
//!
//! It says whether a refused change may concern who may call. The encoding is canonical: every text
//! and list begins with its length, every variant with its name, and each type is taken apart
//! completely, so that a field cannot be added without deciding whether it counts. Fingerprints are
//! compared within one process and never stored: after a restart the live revision is read anew, by
//! the same version as its files. So the encoding may change, and an upgrade closes no tenant.

use std::sync::Arc;

use super::login::PROVIDER_FIELDS;
use super::validation::Validation;
use crate::base::digest::{Digest, Hasher};
use crate::spec::{
    AccessRules, AccessSpec, ApiKeySpec, DirectorySpec, DocumentPolicy, EntraSpec, LoginSpec,
    MachineClientSpec, ProviderSpec, RegistrationSpec,
};

/// Returns the digest of everything that decides who may call, so that a last good revision never
/// admits a caller that a refused one would not.
pub(super) fn compute(validation: &Validation<'_, '_>, access: &AccessSpec) -> Digest {
    let mut encoder = Encoder(Hasher::new());
    encoder.option(validation.layers.find_bool(&["oauth_enabled"]), Encoder::flag);
    // As written: they count even if the login cannot be used.
    for name in PROVIDER_FIELDS {
        encoder.text(validation.layers.find_text(&[name]).unwrap_or_default());
        encoder.text(validation.layers.find_text(&[&format!("{name}_file")]).unwrap_or_default());
    }
    encoder.access(access);
    encoder.0.finish()
}

struct Encoder(Hasher);

impl Encoder {
    fn text(&mut self, text: &str) {
        self.0.update_field(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.0.update_field(&[u8::from(flag)]);
    }

    fn digest(&mut self, digest: Digest) {
        self.text(&digest.to_string());
    }

    fn option<T>(&mut self, value: Option<T>, encode: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            encode(self, value);
        }
    }

    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut encode: impl FnMut(&mut Self, T)) {
        self.0.update_field(&(items.len() as u64).to_be_bytes());
        items.for_each(|item| encode(self, item));
    }

    fn texts(&mut self, texts: &[Arc<str>]) {
        self.list(texts.iter(), |encoder, text| encoder.text(text));
    }

    fn access(&mut self, access: &AccessSpec) {
        // What is open on purpose answers the same callers as what is open by chance.
        let AccessSpec { api_keys, login, public, open_on_purpose: _, allow_from } = access;
        self.list(api_keys.iter(), Self::api_key);
        self.option(login.as_deref(), Self::login);
        self.flag(*public);
        self.option(allow_from.networks(), |encoder, networks| {
            encoder.list(networks.iter(), |encoder, network| encoder.text(&network.to_string()));
        });
    }

    fn api_key(&mut self, key: &ApiKeySpec) {
        let ApiKeySpec { label, digest, expires } = key;
        self.text(label);
        self.digest(*digest);
        self.option(*expires, |encoder, at| encoder.text(&at.to_string()));
    }

    fn login(&mut self, login: &LoginSpec) {
        let LoginSpec { provider, rules, tools, machine_clients, registration, access_token_lifetime } =
            login;
        self.text(&access_token_lifetime.as_secs().to_string());
        match provider {
            ProviderSpec::Entra(entra) => {
                self.text("entra");
                self.entra(entra);
            }
        }
        self.rules(rules);
        self.list(tools.iter(), |encoder, (tool, rules)| {
            encoder.text(tool);
            encoder.rules(rules);
        });
        self.list(machine_clients.iter(), Self::machine_client);
        self.registration(registration);
    }

    fn entra(&mut self, entra: &EntraSpec) {
        // The app and its secrets are encoded as written; when they end changes no access.
        let EntraSpec {
            client_id: _,
            client_secrets: _,
            client_secret_expires: _,
            directory,
            allow_guests,
            allow_personal_accounts,
        } = entra;
        match directory {
            DirectorySpec::One(name) => {
                self.text("one");
                self.text(name);
            }
            DirectorySpec::Several { audience, allowed } => {
                self.text(audience.as_str());
                self.texts(allowed);
            }
        }
        self.flag(*allow_guests);
        self.flag(*allow_personal_accounts);
    }

    fn rules(&mut self, rules: &AccessRules) {
        let AccessRules { roles, groups, users, email_domains } = rules;
        [roles, groups, users, email_domains].into_iter().for_each(|texts| self.texts(texts));
    }

    fn machine_client(&mut self, client: &MachineClientSpec) {
        let MachineClientSpec { id, label, secret, jwks, roles } = client;
        self.text(id);
        self.text(label);
        self.option(*secret, Self::digest);
        self.option(jwks.as_deref(), Self::text);
        self.texts(roles);
    }

    fn registration(&mut self, registration: &RegistrationSpec) {
        let RegistrationSpec { dynamic, documents } = registration;
        self.flag(*dynamic);
        match documents {
            DocumentPolicy::Any => self.text("any"),
            DocumentPolicy::Listed(hosts) => {
                self.text("listed");
                self.texts(hosts);
            }
            DocumentPolicy::Off => self.text("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(encode: impl FnOnce(&mut Encoder)) -> Digest {
        let mut encoder = Encoder(Hasher::new());
        encode(&mut encoder);
        encoder.0.finish()
    }

    fn rules(roles: &[&str], groups: &[&str]) -> AccessRules {
        let texts = |texts: &[&str]| texts.iter().map(|text| Arc::from(*text)).collect();
        AccessRules { roles: texts(roles), groups: texts(groups), ..AccessRules::default() }
    }

    #[test]
    fn nothing_moves_from_one_list_or_text_to_the_next() {
        let of = |roles: &[&str], groups: &[&str]| digest(|encoder| encoder.rules(&rules(roles, groups)));
        let all = [of(&["a"], &["b"]), of(&["a", "b"], &[]), of(&[], &["a", "b"]), of(&["ab"], &[])];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{index}");
        }
        let option = |text: Option<&str>| digest(|encoder| encoder.option(text, Encoder::text));
        assert_ne!(option(None), option(Some("")));
    }

    #[test]
    fn a_directory_and_an_audience_of_one_name_differ() {
        let of = |directory| {
            let entra = EntraSpec {
                client_id: "".into(),
                client_secrets: Vec::new(),
                client_secret_expires: None,
                directory,
                allow_guests: false,
                allow_personal_accounts: false,
            };
            digest(|encoder| encoder.entra(&entra))
        };
        let audience = crate::spec::Audience::Common;
        let several = DirectorySpec::Several { audience, allowed: vec!["one".into()] };
        assert_ne!(of(DirectorySpec::One("common".into())), of(several));
    }
}
