"""What can be measured: classes in 3D, landmarks, radiological measures, lesions, and who hides whom."""
