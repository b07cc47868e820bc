"""Figures that can be trusted: reconstruction beside baselines, steering success with intervals and controls."""
