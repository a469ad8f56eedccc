/* Who orders a certificate: a lease per name in the database, with a number that grows.
 *
 * A gateway takes the lease by one statement, if it is free or has run out, and gets the next
 * number with what is stored. Before it asks the CA for an order it extends the lease, by a statement
 * that compares the number; it asks only while its own clock says that the lease is still its own,
 * which ends before the database's. It writes the order's address and the certificate by statements
 * that compare the number, and gives the lease back by one that does. A gateway may be frozen at any
 * step, for longer than the lease lasts, or die; an order may fail.
 *
 * Claims: what an older number writes never replaces what a newer one wrote; a name for which a
 * certificate is there is not ordered again; and while an order of a lease in force is under way no
 * second one is made.
 *
 * Deliberate breaks: NO_NUMBER (writes do not compare the number), NO_CLOCK (a gateway orders
 * without a look at its clock), NO_NUMBER_AT_RELEASE (giving back does not compare the number), and
 * NO_LOOK (who takes the lease does not look whether a certificate came meanwhile).
 */
/* How often the lease is taken at most. With five, 8,035,270 states take 670 MB. */
#ifndef TAKES
#define TAKES 4
#endif

byte number = 0;      /* the number of the lease in the database */
bool is_free = true;  /* whether the lease may be taken: it was given back, or has run out */
bool is_done = false; /* whether the certificate is in the database */
byte order_of = 0;    /* the number that wrote the order's address; 0: there is none */
byte done_by = 0;     /* the number that wrote the certificate */

/* By number: whether its holder's clock says that the lease is its own, and whether the CA has an
 * order that it made. */
bool in_time[TAKES + 1];
bool has_ordered[TAKES + 1];

/* The CA takes an order. */
inline order() {
    assert(!is_done);
    other = 1;
    do
    :: other <= TAKES -> assert(other == mine || !in_time[other] || !has_ordered[other]); other++
    :: else -> break
    od;
    other = 0;
    has_ordered[mine] = true;
    has_order = true
}

proctype Node() {
    byte mine = 0, other = 0; bool has_order = false, is_needed = false;
    do
    :: is_done -> break
    :: number == TAKES -> break
    :: atomic { is_free && number < TAKES ->
           number++; mine = number; is_free = false; in_time[mine] = true;
#ifdef NO_LOOK
           is_needed = true;
#else
           is_needed = !is_done;
#endif
           has_order = order_of != 0 /* an order that another one began is taken up again */
       };
       /* It may be frozen here, and its lease run out. */
       if
       :: is_needed && !has_order ->
           if
           :: number == mine && !is_free -> /* it extends the lease, and may be frozen again */
               if
#ifdef NO_CLOCK
               :: d_step { true -> order() }
#else
               :: d_step { in_time[mine] -> order() }
               :: !in_time[mine] -> skip /* its clock says that the lease is over */
#endif
               :: skip /* the CA refuses */
               fi
           :: number != mine || is_free -> skip
           fi
       :: else
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
               :: true -> assert(done_by <= mine); done_by = mine; is_done = true; order_of = 0
#else
               :: number == mine -> assert(done_by <= mine); done_by = mine; is_done = true; order_of = 0
               :: else
#endif
               fi
           }
       :: skip /* the CA refuses the name, or the domain is not validated */
       fi;
       /* It is over for this gateway, whose number tells whether it still has something to give back. */
       atomic {
           in_time[mine] = false; has_order = false;
           if
#ifdef NO_NUMBER_AT_RELEASE
           :: true -> is_free = true
#else
           :: number == mine -> is_free = true
           :: else
#endif
           fi
       }
    :: break /* it dies */
    od
}

/* Time: the lease of a frozen or dead gateway runs out, first by its own clock. An order that is on
 * its way when the lease runs out may have reached the CA: the next one may order again. */
active proctype Time() {
    byte ticks = 0, late = 0;
    do
    :: atomic { ticks < 4 && !is_free -> late = number; in_time[late] = false };
       atomic {
           ticks++;
           if
           :: number == late -> is_free = true
           :: else /* it was given back and taken by another one meanwhile */
           fi
       }
    :: ticks == 4 -> break
    :: timeout -> break
    od
}

init {
    atomic { run Node(); run Node(); run Node() }
}
