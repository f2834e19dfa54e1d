//! The rights that grants give, for slices that decide which users may act on which others.

use palisade_db::args;

use super::WRITE;
use crate::app::{Change, Rights};
use crate::error::Result;
use crate::id::UserId;

pub(super) const ON_RESOURCES: Rights = Rights {
    open_more: |change, user, than| Box::pin(open_more(change, user, than)),
    open_to_role: |change, role| Box::pin(open_to_role(change, role)),
    managed_by: WRITE.name,
};

/// Selects a row if something is granted to user `$1` and not to user `$2`: to a role that only the first user holds,
/// or to the first user directly while the second one has no grant that lasts as long. A role counts as a whole, as it
/// does when it is given to a user, because its next grant will apply to everyone who holds it.
const OPENS_MORE: &str = "select cast(1 as bigint) from (
        select g.id from grants g join user_roles r on r.role = g.role
        where r.user_id = $1 and (g.expires_at is null or g.expires_at > $3)
            and r.role not in (select role from user_roles where user_id = $2)
        union all
        select g.id from grants g
        where g.user_id = $1 and (g.expires_at is null or g.expires_at > $3)
            and not exists (select 1 from grants o
                where o.resource_type = g.resource_type and o.resource_id = g.resource_id
                    and o.action = g.action and (o.expires_at is null or o.expires_at >= g.expires_at)
                    and (o.subject = 'anyone' or o.user_id = $2
                        or o.role in (select role from user_roles where user_id = $2)))
     ) opened limit 1";

async fn open_more(change: &mut Change, user: UserId, than: UserId) -> Result<bool> {
    let now = change.now();
    let more: Option<(i64,)> = change.maybe(OPENS_MORE, args![user, than, now]).await?;
    Ok(more.is_some())
}

async fn open_to_role(change: &mut Change, role: &str) -> Result<bool> {
    let opens: Option<(i64,)> = change
        .maybe("select cast(1 as bigint) from grants where role = $1 limit 1", args![role])
        .await?;
    Ok(opens.is_some())
}
