"""HiMAC's own episodes and credit on other people's trainers.

The environments alone are in other stacks by `himac_envs.adapters`.
"""
