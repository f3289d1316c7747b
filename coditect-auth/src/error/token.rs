//! Reasons for the refusal of an access token.

/// Which check an access token has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is longer than 8 KiB.
    #[error("the token is too long")]
    TooLong,
    /// It has not three segments.
    #[error("the token has not three segments")]
    Segments,
    /// Its header cannot be read, or names an algorithm that doesn't exist.
    #[error("the token's header cannot be read")]
    Header(#[source] jsonwebtoken::errors::Error),
    /// No key of the ring has its `kid`, or it has none.
    #[error("the token is of no key known here")]
    UnknownKey,
    /// Its algorithm is not its key's.
    #[error("the token's algorithm is not its key's")]
    Algorithm,
    /// It has critical extensions; we know none.
    #[error("the token has critical extensions")]
    Critical,
    /// Its key did not sign it.
    #[error("the token's signature does not hold")]
    Signature,
    /// It is signed, but is no access token.
    #[error("the token is not of type at+jwt")]
    Type,
    /// Its claims are no JSON object, or one stands there twice.
    #[error("the token's claims cannot be read")]
    Claims(#[source] jsonwebtoken::errors::Error),
    /// A claim is missing, or of the wrong type.
    #[error("the token's claim {0} is missing or of the wrong type")]
    Claim(&'static str),
    /// Somebody else made it.
    #[error("the token is of another issuer")]
    Issuer,
    /// It was made for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It was made in the future.
    #[error("the token was made in the future")]
    IssuedAhead,
    /// Its time has not come.
    #[error("the token does not hold yet")]
    NotYet,
}
