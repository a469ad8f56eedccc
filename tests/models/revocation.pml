/* Revocations, and what gateways that do not hear of them do.
 *
 * A gateway writes a revocation and a change with the next number in one statement, which holds the
 * row of the number until it commits; then it tells the caller. Each gateway asks for the changes
 * that come after the last number that it knows; a notification only makes it ask sooner. A gateway
 * that has not been able to ask for LIMIT ticks refuses calls of guarded tenants.
 *
 * Two revocations are written at once here, by gateways that may die before the commit.
 *
 * Claims: after a revocation was acknowledged, a gateway that can ask refuses the token from its
 * next poll on, and no gateway serves it for longer than LIMIT ticks.
 *
 * Deliberate breaks: NO_LIMIT (a gateway that heard nothing serves on), SEQUENCE (the number comes
 * from a sequence, so that a later one may commit first), TWO_WRITES (the change is written after
 * the revocation, and a gateway may die between the two).
 */
#define NODES 2
#define TOKENS 2
#define LIMIT 2
#define TICKS 5
#define NEVER 255

byte last_number = 0;         /* the last number that was given out */
bool is_locked = false;       /* whether a statement that is not committed holds the number's row */
byte committed_as[TOKENS];    /* the number of the change that is in the database; 0: there is none */
byte acknowledged_at[TOKENS]; /* when the caller was told */
byte now = 0;

bool knows[4];                /* by node and token */
byte seen[NODES];
byte heard_at[NODES];
bool is_cut[NODES];

#define KNOWS(node, token) knows[(node) * TOKENS + (token)]

inline read_change(token) {
    if
    :: committed_as[token] > seen[id] -> KNOWS(id, token) = true
    :: else
    fi
}

inline serve(token) {
    serves = !KNOWS(id, token);
#ifndef NO_LIMIT
    serves = serves && (now - heard_at[id] < LIMIT);
#endif
    assert(!(serves && acknowledged_at[token] != NEVER && now - acknowledged_at[token] >= LIMIT))
}

proctype Node(byte id) {
    bool serves; byte newest;
    do
    :: now == TICKS -> break
    :: d_step { !is_cut[id] ->
           read_change(0); read_change(1);
           newest = (committed_as[0] > committed_as[1] -> committed_as[0] : committed_as[1]);
           seen[id] = (newest > seen[id] -> newest : seen[id]);
           newest = 0; heard_at[id] = now }
    :: d_step { now < TICKS -> /* calls with the tokens */
           serve(0); serve(1); serves = false }
    od
}

proctype Writer(byte token) {
    byte mine;
#ifdef SEQUENCE
    atomic { last_number++; mine = last_number };
    if
    :: committed_as[token] = mine
    :: goto end_dead /* it dies before the commit */
    fi;
#else
#ifdef TWO_WRITES
    /* The row is there; nobody is told of it yet. */
    if
    :: acknowledged_at[token] = now; goto end_dead
    :: skip
    fi;
#endif
    atomic { !is_locked -> is_locked = true; mine = last_number + 1 };
    if
    :: atomic { committed_as[token] = mine; last_number = mine; is_locked = false }
    :: atomic { is_locked = false; goto end_dead } /* it dies, and the statement is undone */
    fi;
#endif
    acknowledged_at[token] = now;
end_dead:
    skip
}

/* A gateway that is not cut off polls at least once in a tick. */
active proctype Time() {
    do
    :: atomic { now < TICKS && (is_cut[0] || heard_at[0] == now) && (is_cut[1] || heard_at[1] == now) -> now++ }
    :: atomic { now < TICKS -> is_cut[0] = !is_cut[0] }
    :: atomic { now < TICKS -> is_cut[1] = !is_cut[1] }
    :: now == TICKS -> break
    od
}

init {
    atomic {
        acknowledged_at[0] = NEVER; acknowledged_at[1] = NEVER;
        run Node(0); run Node(1); run Writer(0); run Writer(1)
    }
}
