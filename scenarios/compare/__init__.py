"""Two trust models compared by playing one fleet under each of them.

The fleet is drawn from a seed (:mod:`.fleet`) and played car by car through the real parties
(:mod:`.play`); what happened is counted from the events that they keep (:mod:`.counting`).
Then somebody gets hold of each party's keys (:mod:`.loot`) and tries what can be forged with
them (:mod:`.forging`), against the same parties. All of it becomes rows of one table
(:mod:`.table`), equal to the byte for equal seeds.
"""
