/* Refresh tokens of one grant, redeemed at any of several gateways over one database.
 *
 * A grant is a family of numbered tokens; the row has the number of the latest one. A gateway reads
 * the row, asks the provider (which takes time), and moves the number on by one statement that
 * compares it (UPDATE ... WHERE number = n). Whoever comes second reads again: the successor of the
 * token that it was shown is handed out again within the grace period. An older token is refused
 * without an end of the grant (503) if it arrived within the grace period from its own replacement,
 * and if the latest one was issued after the request with it arrived: then the request was overtaken, perhaps by
 * its own client at another gateway. Otherwise it ends the grant.
 *
 * A gateway may die or be frozen at any step, before or after the database has committed. Its client
 * gives up at any moment, and asks another one with the same token, while the first request may
 * still be worked on, or be on its way. A client may ask twice at once. The network delivers a
 * request late, but within the grace period of its token.
 *
 * Claims: no honest client is ever told that its grant is invalid; no token that a client was
 * handed is lost; the number only grows by one for each token that is handed out first. With THIEF,
 * somebody else has a token older than the predecessor: it yields nothing, and ends the grant
 * unless it was overtaken or replaced within the grace period.
 *
 * Deliberate breaks: NO_COMPARE (the statement does not compare the number), NO_SECOND_READ (who
 * comes second answers invalid_grant), NO_GRACE (the predecessor ends the grant), NO_ARRIVAL (an
 * older token ends the grant whenever its request arrived), NO_LATE (an older token ends the grant
 * whenever it was replaced), ENDLESS (with the thief: an older token never ends the grant).
 */
/* With three, 94,331,267 states take 7.4 GB and some minutes. */
#ifndef ROUNDS
#define ROUNDS 2
#endif

#define NOTHING 0     /* no answer came back, or a 503 */
#define INVALID 255   /* invalid_grant */

byte number = 1;      /* the latest token of the row */
bool alive = true;    /* whether the row is there */
byte held = 1;        /* the token that the client has */
byte round = 0;       /* what the client waits for; answers to earlier requests reach nobody */
byte outstanding = 0; /* requests of this round that were not answered */
bool was_stolen = false; /* whether a thief has shown its token */
byte grace = 1;       /* this token and later ones were not replaced longer ago than the grace period */
byte under_way[8];    /* honest requests with a token that have not arrived */

/* A token that is neither the latest nor its predecessor. */
inline refuse_used(t, result) {
    if
#ifdef ENDLESS
    :: true -> result = NOTHING
#else
#ifndef NO_ARRIVAL
    :: number > arrived -> result = NOTHING
#endif
#ifndef NO_LATE
    :: is_late -> result = NOTHING
#endif
    :: else -> alive = false; result = INVALID
#endif
    fi;
    assert(result == INVALID || number > arrived || is_late)
}

/* Time passes: the oldest token's grace period ends. Whoever got no successor for it has asked again
 * before, and all that was sent has arrived. */
active proctype Time() {
end:
    do
    :: atomic { grace < held && under_way[grace] == 0 -> grace++ }
    od
}

/* Handles a request with token t that arrived when the latest token was `arrived`; `is_late` if t had
 * been replaced, and within its grace period. */
inline handle(t, arrived, is_late, result) {
    byte seen; bool is_seen;
    atomic { is_seen = alive; seen = number }
    if
    :: result = NOTHING /* the gateway dies, or the database is away */
    :: true ->
        if
        :: !is_seen -> result = INVALID
        :: is_seen && seen == t ->
            /* The provider is asked here: others run meanwhile. */
            if
            :: result = NOTHING /* the gateway dies before the write */
#ifdef NO_COMPARE
            :: atomic { alive -> number = number + 1; result = number }
#else
            :: atomic { alive && number == t -> number = t + 1; result = t + 1 }
               if
               :: skip
               :: result = NOTHING /* it dies after the commit */
               fi
            :: atomic { !(alive && number == t) ->
                   if
#ifdef NO_SECOND_READ
                   :: result = INVALID
#else
                   :: alive && number == t + 1 -> result = t + 1 /* within the grace period */
                   :: alive && number > t + 1 -> refuse_used(t, result)
                   :: !alive -> result = INVALID
#endif
                   fi }
#endif
            fi
#ifdef NO_GRACE
        :: is_seen && seen > t -> atomic { alive = false; result = INVALID }
#else
        :: is_seen && seen == t + 1 -> result = t + 1
        :: is_seen && seen > t + 1 -> atomic { refuse_used(t, result) }
#endif
        fi
    fi
}

/* One request of the client, at whichever gateway answers. */
proctype Request(byte t; byte asked_in) {
    byte result, arrived; bool is_late;
    atomic { arrived = number; is_late = number > t && t >= grace; under_way[t]-- };
    handle(t, arrived, is_late, result);
    atomic {
        assert(result != INVALID || was_stolen);
        if
        :: asked_in == round -> outstanding--;
            if
            :: result > NOTHING && result < INVALID && result > held ->
                assert(result == held + 1); held = result
            :: else
            fi
        :: else
        fi
    }
}

active proctype Client() {
    do
    :: round < ROUNDS ->
        /* Asks once, or twice at once; goes on when all answers are there, or when it gives up. */
        atomic { outstanding++; under_way[held]++; run Request(held, round) };
        if
        :: atomic { outstanding++; under_way[held]++; run Request(held, round) }
        :: skip
        fi;
        if
        :: outstanding == 0
        :: true
        fi;
        assert(alive || was_stolen);
        atomic { round++; outstanding = 0 }
    :: round == ROUNDS -> break
    od;
    assert(number >= held)
}

#ifdef THIEF
/* Has a token that is older than the predecessor. */
active proctype Thief() {
    byte result, t = 1, arrived; bool is_late;
end:
    atomic { number >= t + 2 -> was_stolen = true; arrived = number; is_late = t >= grace };
    handle(t, arrived, is_late, result);
    assert(result == NOTHING || result == INVALID);
    assert(result == NOTHING || !alive)
}
#endif
