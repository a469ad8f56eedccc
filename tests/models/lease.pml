/* Who orders a certificate: a lease per name in the database, with a number that grows.
 *
 * A gateway takes the lease by one statement, if it is free or has run out, and gets the next
 * number. It orders at the CA only while its own clock says that the lease is still its own, and
 * writes the order's address and the certificate by statements that compare the number. A gateway
 * may be frozen at any step, for longer than the lease lasts, or die.
 *
 * Claims: what an older number writes never replaces what a newer one wrote; a name for which a
 * certificate is there is not ordered again; and while an order of a lease in force is under way no
 * second one is made.
 *
 * Deliberate breaks: NO_NUMBER (writes do not compare the number), NO_CLOCK (a gateway orders
 * without a look at its clock).
 */
byte number = 0;          /* the number of the lease in the database */
bool has_run_out = true;  /* whether the lease may be taken */
bool is_done = false;     /* whether the certificate is in the database */
byte order_of = 0;        /* the number that wrote the order's address; 0: there is none */
byte done_by = 0;         /* the number that wrote the certificate */
bool is_ordered = false;  /* whether the CA has an order made since the lease was last taken */

/* The CA takes an order. */
inline order() {
    assert(!(is_ordered && !has_run_out));
    is_ordered = true;
    has_order = true
}

proctype Node() {
    byte mine = 0; bool has_order = false;
    do
    :: is_done -> break
    :: atomic { !is_done && has_run_out ->
           number++; mine = number; has_run_out = false; is_ordered = false;
           has_order = order_of != 0 /* an order that another one began is taken up again */
       };
       /* It may be frozen here, and its lease run out. */
       if
       :: has_order -> skip
       :: !has_order ->
           if
#ifdef NO_CLOCK
           :: atomic { true -> order() }
#else
           :: atomic { number == mine && !has_run_out -> order() }
           :: number != mine || has_run_out -> skip /* its clock says that the lease is over */
#endif
           fi
       fi;
       if
       :: has_order ->
           atomic {
               if
#ifdef NO_NUMBER
               :: true -> assert(order_of <= mine); order_of = mine
#else
               :: number == mine -> assert(order_of <= mine); order_of = mine
               :: else -> has_order = false
#endif
               fi
           }
       :: else
       fi;
       if
       :: has_order ->
           atomic {
               if
#ifdef NO_NUMBER
               :: true -> assert(done_by <= mine); done_by = mine; is_done = true
#else
               :: number == mine && !is_done -> assert(done_by <= mine); done_by = mine; is_done = true
               :: else
#endif
               fi
           }
       :: else
       fi
    :: break /* it dies */
    od
}

/* Time: the lease of a frozen or dead gateway runs out, a few times. An order that is on its way
 * when the lease runs out may have reached the CA: the next one may order again. */
active proctype Time() {
    byte ticks = 0;
    do
    :: atomic { ticks < 4 && !has_run_out -> has_run_out = true; ticks++ }
    :: ticks == 4 -> break
    :: timeout -> break
    od
}

init {
    atomic { run Node(); run Node(); run Node() }
}
