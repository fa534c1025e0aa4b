/*
 * guard.h - access to memory whose touch may raise SIGBUS. The only caller of sigaction in the project.
 *
 *   guard_call(work)          SIGBUS inside work, at an address of the guarded range
 *     frame pushed  --------->  handler: is the innermost frame of this thread the owner?
 *     work(context)               yes: back to guard_call, which returns DRP_FAULT and the address
 *     frame popped                no:  a message if the address lies in a watched range, then whoever had the signal
 *                                      before us (faulthandler, another library), or the default action
 *
 * Frames are per thread and nest: a signal handler that interrupts guarded work may guard work of its own. A fault
 * belongs to the innermost frame or to nobody. The handler is installed while a range is watched; where somebody put
 * his own over it since, the next guard_call() puts ours on top again and chains to his. After the last watch ends the
 * handler of before is restored, unless somebody stands on top: then ours stays and only passes signals on.
 *
 * The handler allocates nothing, takes no lock and writes with write(2). State of the process, because a signal's
 * disposition is one: the handler before ours, and the watched ranges.
 *
 * Callers: region.
 */
#ifndef DRP_GUARD_H
#define DRP_GUARD_H

#include <stddef.h>
#include <stdint.h>

struct guard_watch;

/*
 * Watches length bytes from start: the handler is installed, and an unguarded access that faults there is reported on
 * standard error under name (cut after GUARD_NAME_BYTES - 1) before the signal goes its way.
 * DRP_NO_MEMORY, DRP_SYSTEM. Any thread; not from signal handlers.
 */
enum { GUARD_NAME_BYTES = 64 };
int guard_watch(const void *start, size_t length, const char *name, struct guard_watch **out);
void guard_unwatch(struct guard_watch *watch);
void guard_shrink(struct guard_watch *watch, size_t length);

/*
 * Runs work(context). A SIGBUS (BUS_ADRERR) at an address of [start, start + length) that work touches ends it in the
 * middle: DRP_FAULT, and the address in *fault. So work must be a leaf that holds no lock and owns nothing. Blocked
 * SIGBUS is unblocked for the duration. Some range must be watched.
 */
int guard_call(void (*work)(void *context), void *context, const void *start, size_t length, uintptr_t *fault);

#endif
