"""The ranking tables: protocol, learners, rows."""
