/* Crossing: one record between a source and its destinations, as sovchain.contracts.core.crossing moves it.
 *
 * Every step is a process of its own and may happen at any time, late, again or never: that is a crash, a duplicate and a
 * reordering of every step at once. Views are facts that peers signed; whoever collected one keeps it for ever and may
 * present it whenever he likes. Of two transactions on one key in a block the second fails, so each step is atomic.
 *
 *   spin -a docs/crossing.pml && cc -O2 -DNFAIR=5 -o pan pan.c && ./pan -a -f          (holds)
 *   spin -a -DNO_OPEN docs/crossing.pml && ...                               (each guard removed: a counterexample)
 *
 * NO_OPEN   accept does not look whether the challenge is still open
 * NO_HERE   send does not look whether the record is here
 * NO_ONCE   send answers a challenge again
 * NO_DEST   a destination accepts what was sent to another
 * NO_FINAL  finalise needs no view of the import
 * NO_CANCEL release needs no view of the cancellation: a time-out unlocks
 * NO_KEY    cancelling and importing write different keys
 * NO_LOCK   settle does not look for which challenge the record is locked
 */
#ifndef N
#define N 2  /* challenges */
#endif

mtype = { none, asked, imported, cancelled, here, locked, gone };

mtype place = here;      /* of the record at its source */
byte holder = N;         /* the challenge that it is locked for */
mtype challenge[N] = none;
bool answered[N];
bool opened[N], outgoing[N], done[N], revoked[N];  /* views that were collected */
byte copies = 0;         /* imports */
bool astray[N];          /* imported at the wrong destination */

/* Never two at once: not here and there, not there twice. Never none: gone from here only when it arrived. */
#define single (copies + (place == here) <= 1)
#define kept (place != gone || copies == 1)
inline check() { assert(single && kept) }

proctype Ask(byte c) {
    atomic { challenge[c] == none -> challenge[c] = asked; printf("ask %d\n", c) }
}
proctype TellAsked(byte c) {
    do :: atomic { challenge[c] == asked && !opened[c] -> opened[c] = true; printf("told asked %d\n", c) } od
}
proctype Send(byte c) {
    do
    :: atomic {
        (opened[c]
#ifndef NO_HERE
        && place == here
#endif
#ifndef NO_ONCE
        && !answered[c]
#endif
        && !(place == locked && holder == c)) ->
        place = locked; holder = c; answered[c] = true; printf("send %d\n", c); check()
    }
    od
}
proctype TellSent(byte c) {
    do :: atomic { place == locked && holder == c && !outgoing[c] -> outgoing[c] = true; printf("told sent %d\n", c) } od
}
proctype Accept(byte c) {
    bool consumed = false;
    do
    :: atomic {
        (outgoing[c]
#ifdef NO_OPEN
        && copies < 3
#else
#ifdef NO_KEY
        && !consumed && challenge[c] != none
#else
        && challenge[c] == asked
#endif
#endif
        ) -> challenge[c] = imported; consumed = true; copies++; printf("accept %d\n", c); check()
    }
#ifdef NO_DEST
    :: atomic { outgoing[c] && !astray[c] -> astray[c] = true; copies++; printf("accept elsewhere %d\n", c); check() }
#endif
    od
}
proctype Cancel(byte c) {
    do
    :: atomic { challenge[c] == asked -> challenge[c] = cancelled; printf("cancel %d\n", c) }
#ifdef NO_KEY
    :: atomic { challenge[c] == imported && !revoked[c] -> revoked[c] = true; printf("cancel %d\n", c) }
#endif
    od
}
proctype TellClosed(byte c) {
    do
    :: atomic { challenge[c] == imported && !done[c] -> done[c] = true; printf("told imported %d\n", c) }
    :: atomic { challenge[c] == cancelled && !revoked[c] -> revoked[c] = true; printf("told cancelled %d\n", c) }
    od
}
proctype Settle(byte c) {
    do
    :: atomic {
        (place == locked
#ifndef NO_LOCK
        && holder == c
#endif
#ifndef NO_FINAL
        && done[c]
#endif
        ) -> place = gone; holder = N; printf("finalise %d\n", c); check()
    }
    :: atomic {
        (place == locked
#ifndef NO_LOCK
        && holder == c
#endif
#ifndef NO_CANCEL
        && revoked[c]
#endif
        ) -> place = here; holder = N; printf("release %d\n", c); check()
    }
    od
}
init {
    byte c;
    atomic {
        for (c : 0 .. N - 1) {
            run Ask(c); run TellAsked(c); run Send(c); run TellSent(c);
            run Accept(c); run Cancel(c); run TellClosed(c); run Settle(c)
        }
    }
}

/* As long as somebody goes on (weak fairness), no record stays locked, nor can it be locked over and over again. */
ltl rest { <>[](place != locked) }
