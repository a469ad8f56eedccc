/* Refresh tokens of one grant, redeemed at any of several gateways over one database.
 *
 * A grant is a family of numbered tokens; the row has the number of the latest one. A gateway reads
 * the row, asks the provider (which takes time), and moves the number on by one statement that
 * compares it (UPDATE ... WHERE number = n). Whoever comes second reads again: the successor of the
 * token that it was shown is handed out again within the grace period.
 *
 * A gateway may die at any step, before or after the database has committed; its client then asks
 * another one with the same token. A client may ask twice at once.
 *
 * Claims: no honest client is ever told that its grant is invalid; no token that a client was
 * handed is lost; the number only grows by one for each token that is handed out first. With THIEF,
 * somebody else has a token older than the predecessor: it yields nothing, and ends the grant.
 *
 * Deliberate breaks: NO_COMPARE (the statement does not compare the number), NO_SECOND_READ (who
 * comes second answers invalid_grant), NO_GRACE (the predecessor ends the grant).
 */
#define ROUNDS 3

#define NOTHING 0     /* no answer came back, or a 503 */
#define OUTRUN 254    /* a refusal that ends nothing: the client has a newer token by now */
#define INVALID 255   /* invalid_grant */

byte number = 1;      /* the latest token of the row */
bool alive = true;    /* whether the row is there */
byte held = 1;        /* the token that the client has */
byte outstanding = 0; /* requests of the client that were not answered */
bool was_stolen = false; /* whether a thief has shown its token */

/* Handles one request with token t. */
inline handle(t, result) {
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
                   :: alive && number > t + 1 -> result = OUTRUN
                   :: !alive -> result = INVALID
#endif
                   fi }
#endif
            fi
#ifdef NO_GRACE
        :: is_seen && seen > t -> atomic { alive = false; result = INVALID }
#else
        :: is_seen && seen == t + 1 -> result = t + 1
        :: is_seen && seen > t + 1 -> atomic { alive = false; result = INVALID }
#endif
        fi
    fi
}

/* One request of the client, at whichever gateway answers. */
proctype Request() {
    byte t = held, result;
    handle(t, result);
    atomic {
        outstanding--;
        assert(result != INVALID || was_stolen);
        if
        :: result > NOTHING && result < OUTRUN && result > held -> assert(result == held + 1); held = result
        :: else
        fi
    }
}

active proctype Client() {
    byte round = 0;
    do
    :: round < ROUNDS ->
        /* Asks once, or twice at once; goes on when all answers are there or lost. */
        atomic { outstanding++; run Request() };
        if
        :: atomic { outstanding++; run Request() }
        :: skip
        fi;
        outstanding == 0;
        assert(alive || was_stolen);
        round++
    :: round == ROUNDS -> break
    od;
    assert(number == held || number == held + 1)
}

#ifdef THIEF
/* Has a token that is older than the predecessor. */
active proctype Thief() {
    byte result, t = 1;
end:
    atomic { number >= t + 2 -> was_stolen = true };
    handle(t, result);
    assert(result == NOTHING || result == INVALID);
    assert(result == NOTHING || !alive)
}
#endif
