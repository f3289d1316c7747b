//! Byte fixtures of every record of identity. After a release a fixture never changes; a new
//! version of an entity adds one.

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use coditect_auth::{
    KeyId, KeyState, Scopes, SealedKey, WrappedRootKey,
    keys::Algorithm,
    model::{
        AuditExtent, ClockMark, Grant, IdeGrant, Invitation, InvitationId, LoginFailures,
        PasswordReset, PasswordResetId, PersonalToken, PersonalTokenId, ResetOrigin, SecondFactor,
    },
    seal::Sealed,
};
use coditect_store::{
    Entity, Store,
    engine::Database,
    model::{MembershipId, MembershipRef, Role, TenantId, UserId},
};
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n)
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_750_000_000_000_000 + micros).unwrap()
}

fn sealed() -> Sealed {
    Sealed { nonce: [0xaa; 24], ciphertext: vec![0xbb; 48] }
}

/// Writes `record`, compares its bytes with `fixture`, and reads `fixture` in its place.
async fn reads_and_writes<E: Entity + Debug + PartialEq>(store: &Store, record: &E, fixture: &str) {
    let digits: String = fixture.lines().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let fixture: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let key = E::SPACE.key(store.root(), record.scope(), &record.key());
    let tx = store.begin();
    tx.insert(record).await.unwrap();
    let written = tx.engine().get(&key).await.unwrap().unwrap();
    let hex =
        |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(hex(&written), hex(&fixture), "{}", E::SPACE.name());
    tx.engine().set(&key, &fixture);
    let read = tx.get::<E>(record.scope(), record.key()).await.unwrap();
    assert_eq!(read.as_ref(), Some(record));
}

#[tokio::test]
async fn version_1_of_every_record_is_read_and_written() {
    let store = coditect_auth::entities(Store::options());
    let store = store.open(Database::temporary().unwrap()).await.unwrap();
    let (tenant_id, user_id) = (TenantId(id(1)), UserId(id(2)));

    let root = WrappedRootKey { sealed: sealed(), sealed_at: time(1) };
    reads_and_writes(&store, &root, include_str!("../../fixtures/sealed_root.v1.hex")).await;
    let key = SealedKey {
        kid: KeyId(id(3)),
        algorithm: Algorithm::EdDsa,
        state: KeyState::Retired { activated_at: time(2), retired_at: time(3) },
        created_at: time(4),
        sealed: Some(sealed()),
    };
    reads_and_writes(&store, &key, include_str!("../../fixtures/sealed_key.v1.hex")).await;
    let mark = ClockMark { trusted_at: time(15), ahead_at: Some(time(17)), ahead_micros: 300 };
    reads_and_writes(&store, &mark, include_str!("../../fixtures/clock_mark.v1.hex")).await;
    let extent = AuditExtent { tenant_id, entries: 300, counted_to: None };
    reads_and_writes(&store, &extent, include_str!("../../fixtures/audit_extent.v1.hex")).await;
    let grant = IdeGrant {
        tenant_id,
        user_id,
        granted_by: TenantId(id(8)),
        invited_by: Some(UserId(id(9))),
        created_at: time(18),
    };
    reads_and_writes(&store, &grant, include_str!("../../fixtures/ide_grant.v1.hex")).await;
    let failures =
        LoginFailures { key: [0xcc; 32], count: 300, last_at: time(5), expires_at: time(6) };
    reads_and_writes(&store, &failures, include_str!("../../fixtures/login_failures.v1.hex")).await;
    let invitation = Invitation {
        id: InvitationId(id(4)),
        tenant_id,
        email: "Ada@Example.org".to_owned(),
        email_normalized: "ada@example.org".to_owned(),
        role: Role::Owner,
        ide: true,
        hash: [0xdd; 32],
        invited_by: user_id,
        granted_by: Some(Grant { membership_id: MembershipId(id(8)), demotions: 300 }),
        created_at: time(7),
        expires_at: time(8),
    };
    reads_and_writes(&store, &invitation, include_str!("../../fixtures/invitation.v1.hex")).await;
    let reset = PasswordReset {
        id: PasswordResetId(id(7)),
        tenant_id,
        user_id,
        origin: ResetOrigin::Operator,
        hash: [0xee; 32],
        created_at: time(9),
        expires_at: time(10),
    };
    reads_and_writes(&store, &reset, include_str!("../../fixtures/password_reset.v1.hex")).await;
    let token = PersonalToken {
        id: PersonalTokenId(id(5)),
        tenant_id,
        user_id,
        active_membership: Some(MembershipRef {
            tenant_id: TenantId(id(6)),
            membership_id: MembershipId(id(7)),
        }),
        name: "CI".to_owned(),
        scopes: Scopes::new(&["read", "ci:deploy"]).unwrap(),
        hash: [0xff; 32],
        created_at: time(11),
        last_used_at: time(12),
        expires_at: time(13),
    };
    reads_and_writes(&store, &token, include_str!("../../fixtures/personal_token.v1.hex")).await;
    let factor = SecondFactor {
        tenant_id,
        user_id,
        secret: sealed(),
        confirmed: true,
        last_step: 58_333_333,
        recovery_hashes: vec![[0x11; 32], [0x22; 32]],
        failures: 300,
        created_at: time(14),
    };
    reads_and_writes(&store, &factor, include_str!("../../fixtures/second_factor.v1.hex")).await;
}
