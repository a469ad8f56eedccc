use super::*;

#[test]
fn the_newest_active_key_signs_and_a_retired_key_is_removed() {
    let at = |hours| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
    let beginnings = [at(0), at(24), at(100)];
    let signs = |hours| signing_index(beginnings.into_iter(), at(hours));
    assert_eq!([signs(-1), signs(0), signs(23), signs(24), signs(99), signs(100)], [0, 0, 0, 1, 1, 2]);
    let gone = |hours| count_retired(beginnings.into_iter(), at(hours));
    // The previous key is kept for a token's lifetime and the difference between clocks.
    assert_eq!([gone(24), gone(25), gone(26), gone(102)], [0, 0, 1, 2]);
}

#[test]
fn a_thumbprint_is_that_of_rfc_7638() {
    let key = LoadedSigningKey::from_stored(generate(Timestamp::UNIX_EPOCH)).expect("a key");
    let jwk = key.to_jwk();
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
    let expected = BASE64_URL_SAFE_NO_PAD.encode(Digest::of(members.as_bytes()).as_bytes());
    assert_eq!(key.kid, expected);
    assert_eq!(jwk["x"].as_str().map(str::len), Some(43));
}
