//! Reasons for the refusal of an access token.

/// The check that an access token failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token exceeds 8 KiB.
    #[error("the token is too long")]
    TooLong,
    /// The token does not have three segments.
    #[error("the token does not have three segments")]
    Segments,
    /// The header is malformed, or names an unknown algorithm.
    #[error("the token's header is malformed")]
    Header(#[source] jsonwebtoken::errors::Error),
    /// The `kid` is missing, or no key of the ring has it.
    #[error("the key of the token is unknown")]
    UnknownKey,
    /// The algorithm is not that of the key.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// The header has critical extensions; none is supported.
    #[error("the token has critical extensions")]
    Critical,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// The signature is valid, but the type is not that of access tokens.
    #[error("the token is not of type at+jwt")]
    Type,
    /// The claims are not a JSON object with unique names.
    #[error("the token's claims are malformed")]
    Claims(#[source] jsonwebtoken::errors::Error),
    /// A claim is missing or of the wrong type.
    #[error("the token's claim {0} is missing or of the wrong type")]
    Claim(&'static str),
    /// The issuer is another.
    #[error("the token's issuer is another")]
    Issuer,
    /// The audience is another.
    #[error("the token's audience is another")]
    Audience,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token was issued in the future.
    #[error("the token was issued in the future")]
    IssuedAhead,
    /// The token's `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYet,
}
