#!/bin/bash
# A client's whole life on a site of its own, in scaled time: a year passes in a minute. Each step
# prints what is seen; the script ends with status 0 only when every step really happened.
# usage: demo.sh FOLDER-OF-PROGRAMS   (KEEP=1 leaves the site running)
set -euo pipefail

programs=$(cd "$1" && pwd)
perennial=$programs/perennial
work=$(mktemp -d /tmp/perennial-demo.XXXXXX)
site=$work/site
mac=$work/mac
drawer=$work/drawer
mkdir "$mac" "$drawer"
now=$(date +%s)
export PERENNIAL_TEST_CLOCK=$now:$now:525600
export PERENNIAL_SITE=$site
server_pid= daemon_pid=

finish() {
    status=$?
    [ -z "$daemon_pid" ] || kill "$daemon_pid" 2>/dev/null || true
    if [ "$status" != 0 ]; then
        echo "the demo did not finish: step $step failed; see $work" >&2
        [ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
    elif [ -z "${KEEP:-}" ]; then
        [ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
        wait 2>/dev/null || true
        rm -rf "$work"
    fi
}
trap finish EXIT

step=0
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold= plain=; fi
say() { step=$((step + 1)); printf '%s%2d  %s%s\n' "$bold" "$step" "$1" "$plain"; }
see() { printf '    %s\n' "$1"; }
fail() { echo "    not seen: $1" >&2; exit 1; }
# Waits until a command succeeds, at most 90 s.
until_seen() { local what=$1; shift; for _ in $(seq 450); do "$@" && return 0; sleep 0.2; done; fail "$what"; }

agent() { "$programs/perennial-agent" "$@"; }
tool() { local name=$1; shift; "$mac/usr/lib/perennial/Tools/$name" --root "$mac" "$@"; }
status_of() { agent status --root "$1" --json; }
# The value of a key of a flat JSON record.
field() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" | head -n 1; }

say "A site is made: its keys, its database, its first administrator"
"$perennial" init --name "Demo" --hostname 127.0.0.1 >"$work/init.log"
sed -i 's/^check_in_interval = .*/check_in_interval = "7d"/' "$site/perennial.toml"
"$perennial" serve --devices 127.0.0.1:0 --console 127.0.0.1:0 >"$work/ready" 2>"$work/serve.log" &
server_pid=$!
until_seen "the site is ready" grep -q '^ready ' "$work/ready"
see "$(cat "$work/ready")"
devices=$(sed 's/.*devices=https:\/\/\([^ ]*\).*/\1/' "$work/ready")
console=$(sed 's/.*console=\([^ ]*\).*/\1/' "$work/ready")
pin=$(sed 's/.*pin=\([^ ]*\).*/\1/' "$work/ready")

say "Two users may enroll"
for user in ann bob; do printf 'demo password' | "$perennial" user add $user --password-stdin | sed 's/^/    /'; done

say "The client is installed, with the tools that administrators know"
agent install --root "$mac" | sed -n 's/^tools */    /p'

say "A wrong password is refused"
code=0
printf 'wrong password' | tool CMEnroll -s "$devices" -u ann -pin "$pin" --password-stdin 2>"$work/wrong" || code=$?
[ "$code" = 4 ] || fail "exit status 4 (was $code)"
see "$(head -n 1 "$work/wrong") (exit status 4)"

say "CMEnroll -s $devices -u ann"
printf 'demo password' | tool CMEnroll -s "$devices" -u ann -pin "$pin" --password-stdin >"$work/enrolled"
grep -q 'Successfully enrolled' "$work/enrolled" || fail "Successfully enrolled"
sed 's/^/    /' "$work/enrolled"
smsid=$(status_of "$mac" | field smsid)
serial=$(status_of "$mac" | field serial)

say "It checks in, and learns when to renew"
agent check-in --root "$mac" | sed 's/^/    /'
"$perennial" device list | sed 's/^/    /'
agent status --root "$mac" | sed 's/^/    /'

say "A baseline finds what is wrong on the client, and mends it"
mkdir -p "$mac/Users/Shared"
echo "salaries" >"$mac/Users/Shared/payroll.csv"
chmod 666 "$mac/Users/Shared/payroll.csv"
echo 'stat -c %a "$PERENNIAL_ROOT/Users/Shared/payroll.csv"' >"$work/discovery.sh"
echo 'chmod 600 "$PERENNIAL_ROOT/Users/Shared/payroll.csv"' >"$work/remediation.sh"
"$perennial" ci create "Payroll is private" --type Linux --discovery "$work/discovery.sh" \
    --remediation "$work/remediation.sh" --data-type string --operator equals --value 600 --remediate >/dev/null
"$perennial" baseline create "Office" --ci "Payroll is private" >/dev/null
"$perennial" deployment create --baseline "Office" --collection "All Devices" --remediate >/dev/null
assigned() { agent check-in --root "$mac" >/dev/null && agent status --root "$mac" | grep -q Office; }
until_seen "the deployment on the client" assigned
agent evaluate --root "$mac" 2>/dev/null | sed 's/^/    /'
[ "$(stat -c %a "$mac/Users/Shared/payroll.csv")" = 600 ] || fail "the file is private"
"$perennial" compliance device "$smsid" --all >"$work/complies"
grep -q remediated "$work/complies" || fail "remediated, on the site"
"$perennial" compliance summary | sed 's/^/    /'

say "The incumbent's way to a new certificate: Remove SMSID for Mac, then CMEnroll"
name="Remove SMSID for Mac"
echo 'defaults read com.microsoft.ccmclient SMSID' >"$work/discovery.sh"
echo 'defaults delete com.microsoft.ccmclient SMSID' >"$work/remediation.sh"
"$perennial" ci create "$name" --type macOS --type Linux --discovery "$work/discovery.sh" \
    --remediation "$work/remediation.sh" --data-type string --operator equals --remediate \
    --value "The domain/default pair of (com.microsoft.ccmclient, SMSID) does not exist" >/dev/null
"$perennial" baseline create "$name" --ci "$name" >/dev/null
"$perennial" collection create "Must renew" >/dev/null
"$perennial" collection add "Must renew" "$smsid" >/dev/null
"$perennial" deployment create --baseline "$name" --collection "Must renew" --remediate >/dev/null
assigned() { agent check-in --root "$mac" >/dev/null && agent status --root "$mac" | grep -q "$name"; }
until_seen "the deployment on the client" assigned
agent evaluate "$name" --root "$mac" 2>/dev/null | sed 's/^/    /'
printf 'demo password' | tool CMEnroll -s "$devices" -u ann -pin "$pin" --password-stdin >/dev/null
old=$smsid
smsid=$(status_of "$mac" | field smsid)
serial=$(status_of "$mac" | field serial)
[ "$smsid" != "$old" ] || fail "a new identifier"
see "SMSID before: $old"
see "SMSID now:    $smsid"
"$perennial" device show "$old" --json | grep -q '"obsolete"' || fail "the old record is obsolete"
see "the old record is obsolete; its history is read from the new one"
# The new record takes the old one's places in collections: the work is done, so the deployment goes.
"$perennial" deployment delete 2 --yes >/dev/null
gone() { agent check-in --root "$mac" >/dev/null && ! agent status --root "$mac" | grep -q "$name"; }
until_seen "the end of the deployment on the client" gone

say "Bob's computer enrolls too, and then lies in a drawer"
printf 'demo password' | agent enroll --root "$drawer" -s "$devices" -u bob --pin "$pin" --password-stdin >/dev/null
[ "$("$perennial" certificate list --expiring-within 45d --csv | wc -l)" = 1 ] || fail "nothing expires yet"
see "certificates that expire within 45 days: none"

say "A year passes in a minute; Ann's computer runs, and nobody is asked for anything"
agent run --root "$mac" 2>"$work/agent.log" &
daemon_pid=$!
renewed() { [ "$(status_of "$mac" | field serial)" != "$serial" ]; }
until_seen "a silent renewal on the client" renewed
see "client: serial $serial is replaced by $(status_of "$mac" | field serial)"
superseded() { "$perennial" certificate list --state superseded --csv | grep -q "$serial"; }
until_seen "the old certificate superseded on the site" superseded
see "site:   $serial is superseded"
[ "$(status_of "$mac" | field smsid)" = "$smsid" ] || fail "the same SMSID"
see "SMSID:  $smsid, as before"

say "45 days before its end, the computer in the drawer stands on the list"
expiring() { "$perennial" certificate list --expiring-within 45d --csv | grep -q bob; }
until_seen "bob's certificate" expiring
"$perennial" certificate list --expiring-within 45d | tee "$work/expiring" | sed 's/^/    /'
! grep -q "CN=ann" "$work/expiring" || fail "ann's certificate is not on it"

say "Ann's computer leaves: CMUninstall -c"
serial=$(status_of "$mac" | field serial)
tool CMUninstall -c >"$work/left"
sed 's/^/    /' "$work/left"
grep -q 'is retired' "$work/left" || fail "the device is retired"
[ -z "$(find "$mac" -mindepth 1 -not -path "$mac/Users*")" ] || fail "nothing of the client is left"
see "left behind: nothing"
wait "$daemon_pid" || fail "the daemon ended well"
daemon_pid=

say "Its certificate is on the revocation list, as openssl reads it"
on_list() {
    "$perennial" crl show --out "$work/list.crl" >/dev/null
    openssl crl -inform DER -in "$work/list.crl" -noout -text -CAfile "$site/keys/issuing.pem" >"$work/list.txt" 2>&1
    grep -qi "$serial" "$work/list.txt"
}
until_seen "$serial on the list" on_list
grep -q 'verify OK' "$work/list.txt" || fail "the list's signature"
see "openssl crl: verify OK"
see "$(grep -i -A 3 "$serial" "$work/list.txt" | tr -s ' \n' ' ')"

say "The audit log holds"
"$perennial" audit verify | sed 's/^/    /'

say "The console: $console"
if [ -n "${KEEP:-}" ]; then
    see "The site goes on, in scaled time. Look around:"
    see "  export PERENNIAL_SITE=$site PERENNIAL_TEST_CLOCK=$PERENNIAL_TEST_CLOCK"
    see "  $perennial device list"
    see "  $perennial audit list"
    see "  curl --cacert $site/keys/root.pem $console/   (add -k: curl lives in another year)"
    see "End it: kill $server_pid; rm -r $work"
    disown "$server_pid"
else
    see "The site stops now; make demo KEEP=1 leaves it running."
fi
