"""jobbridge: follows long jobs on hosted job and agent APIs; hands every event to Kafka and signed webhooks.

    provider ~~stream/poll~~> INTAKE --append(events, cursor)--> JOURNAL --pending / settle--> DELIVERY ~~> sinks
                                 \\                                  |                              /
                                  \\____________ SUPERVISION keeps both kinds of session alive ____/
                                                     CONTROL looks on from outside

Three rules hold the house together, and the import linter holds the rules:

1. The halves meet only in the journal.
2. Plugs translate; loops decide. A provider, store or sink never counts, logs, sleeps or retries.
3. Only the composition root, through the plug catalogues, meets concrete plugs.
"""

__version__ = "0.1.0"
